// A change of layout as a state machine: what has happened goes in, what to do comes out.
//
//     kBeginning --begun--> kPreparing --all prepared, digests right--> kDeciding
//         |                     |                                          | line durable
//         +------ failure: rolled back, the old map serves ------+         v
//                                                                |     kSwitching
//                                                             kEnded       | replica ready, or not
//                                                                ^         v
//                                                                +---- kRetiring
//
// The line in the log is the decision. Before it every failure (a rank lost, one that holds
// something else than planned, the deadline) rolls back, and afterwards nothing does: a rank that
// is lost then is lost under the new map, which is its owner's next problem.
//
// Thread model: none; one owner. No I/O, no clock: time comes in. Ownership: values. Invariants:
// WriteDecision is asked for once, after every rank of the new map has answered with the digest
// that was planned; SwitchServing only after the decision is durable.
#ifndef TROUPE_COORDINATOR_RESHARD_TRANSACTION_H_
#define TROUPE_COORDINATOR_RESHARD_TRANSACTION_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace troupe {

enum class ReshardPhase { kBeginning, kPreparing, kDeciding, kSwitching, kRetiring, kEnded };

// As progress and errors name it.
const char* NameOf(ReshardPhase phase);

struct ReshardMember {
  std::string worker;
  bool in_old = false;
  bool in_new = false;
  std::string digest;  // that it is to answer with; only in_new
};

// What the owner is to do, in this order.
struct WriteBegin {};  // then call Begun
struct AskPrepare {    // then call Prepared, once
  size_t member = 0;
};
struct WriteDecision {};  // then call Decided; a log that does not know whether it wrote must not
struct SwitchServing {};  // then call Switched
struct AskRetire {        // then call Retired
  size_t member = 0;
  uint64_t keep_epoch = 0;
};
struct EndReshard {
  bool decided = false;
  absl::Status status;  // OK: the replica is ready with the new map
};
using ReshardAction =
    std::variant<WriteBegin, AskPrepare, WriteDecision, SwitchServing, AskRetire, EndReshard>;
using ReshardActions = std::vector<ReshardAction>;

class ReshardTransaction {
 public:
  struct Config {
    uint64_t old_epoch = 0;  // 0: nothing serves
    uint64_t new_epoch = 0;
    int64_t retire_timeout_us = 0;  // ranks that do not answer are not waited for longer
  };

  ReshardTransaction(const Config& config, std::vector<ReshardMember> members);

  // What is not prepared by `deadline_us` is rolled back.
  ReshardActions Start(int64_t deadline_us);
  ReshardActions Begun(const absl::Status& status);
  // A rank holds everything, and this digest of it; or it does not.
  ReshardActions Prepared(size_t member, const absl::StatusOr<std::string>& digest);
  // Not OK: the line is certainly not in the log.
  ReshardActions Decided(const absl::Status& status);
  // The replica is ready with the new map; or it was lost on the way there.
  ReshardActions Switched(const absl::Status& status, int64_t now_us);
  ReshardActions Retired(size_t member);
  // The rank is gone, or the old layout does not serve any more.
  ReshardActions Lost(size_t member, const absl::Status& status);
  ReshardActions Tick(int64_t now_us);
  // Somebody wants it undone; too late after the decision, when nothing happens.
  ReshardActions Cancel(const absl::Status& status);

  ReshardPhase phase() const { return phase_; }
  bool decided() const { return decided_; }
  const Config& config() const { return config_; }
  const std::vector<ReshardMember>& members() const { return members_; }
  uint32_t prepared() const { return prepared_count_; }
  // Ranks of the new map.
  uint32_t to_prepare() const;

 private:
  ReshardActions RollBack(absl::Status status);
  ReshardActions EndIfRetired();
  bool CanRollBack() const;

  const Config config_;
  const std::vector<ReshardMember> members_;
  ReshardPhase phase_ = ReshardPhase::kBeginning;
  bool decided_ = false;
  bool asked_ = false;  // to prepare
  std::vector<bool> prepared_;
  uint32_t prepared_count_ = 0;
  std::vector<bool> retired_;  // or lost
  int64_t deadline_us_ = 0;
  int64_t retire_deadline_us_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_RESHARD_TRANSACTION_H_
