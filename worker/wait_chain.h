// Who is to blame when everybody waits: in the middle of an operation a member may wait for one
// that itself waits for the one that stopped. Members that run say whom they wait for; the one at
// the end of the chain, who says nothing or waits for nobody, is late.
//
// Thread model: Culprit by one thread, the others by any. Ownership: what asks is borrowed.
#ifndef TROUPE_WORKER_WAIT_CHAIN_H_
#define TROUPE_WORKER_WAIT_CHAIN_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

#include "absl/time/time.h"

namespace troupe {

// What members say to each other beside their operations. One number, so that it is there or not.
// Before its connections close a member says a last word, one of kLeft, kLost and kLate, once.
class Word {
 public:
  enum Kind { kNone, kLeft, kLost, kLate, kAsk, kWaits };

  Word() = default;
  // `whom`: who is lost or late, or waited for; -1: nobody.
  Word(Kind kind, int whom) : code_((whom + 1) * 8 + kind) {}

  Kind kind() const { return static_cast<Kind>(code_ % 8); }
  int whom() const { return code_ / 8 - 1; }

 private:
  int32_t code_ = 0;
};

// How long a member that runs may take to answer, where operations may take `timeout`.
std::chrono::milliseconds PatienceFor(absl::Duration timeout);

class WaitChain {
 public:
  // `ask` sends a member the question; false: it cannot be reached. A member that does not answer
  // for `patience` has stopped.
  WaitChain(int rank, int size, std::chrono::milliseconds patience,
            std::function<bool(int peer)> ask);

  // The member at the end of the chain, from `peer` on; `peer` where the chain has no end.
  int Culprit(int peer);
  // The member waits for `whom`; -1: for nobody.
  void OnAnswer(int peer, int whom);
  // No answer matters any more.
  void GiveUp();

 private:
  // Nothing where it does not say.
  std::optional<int> Ask(int peer);

  const int rank_;
  const std::chrono::milliseconds patience_;
  const std::function<bool(int)> ask_;
  std::mutex mutex_;
  std::condition_variable answered_;
  // Both below are guarded by mutex_.
  std::vector<std::optional<int>> waits_;  // by member, what it answered since it was asked
  bool given_up_ = false;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_WAIT_CHAIN_H_
