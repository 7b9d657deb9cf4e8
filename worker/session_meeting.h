// The meeting of a session's ranks, carried by the coordinator; and the way to call a rank back
// from whatever it waits for there.
//
// Thread model: Exchange and Guard by the one thread that becomes the rank and computes; Deliver
// and CallOff by any. Ownership: shared by session and executor; the outlet is the session's.
// Invariants: once called off, it stays so, and no communicator is left waiting.
#ifndef TROUPE_WORKER_SESSION_MEETING_H_
#define TROUPE_WORKER_SESSION_MEETING_H_

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "troupe/v1/worker.pb.h"
#include "worker/communicator.h"
#include "worker/meeting.h"

namespace troupe {

class SessionOutlet;

class SessionMeeting final : public Meeting {
 public:
  explicit SessionMeeting(std::weak_ptr<SessionOutlet> outlet) : outlet_(std::move(outlet)) {}

  // Waits as long as the session lasts: how long the others may take is the coordinator's decision.
  absl::StatusOr<std::vector<std::string>> Exchange(std::string mine) override;

  // From the coordinator. FAILED_PRECONDITION: nobody waits for it.
  absl::Status Deliver(const v1::Meeting& meeting);

  // The session is over. `reason` must not be OK.
  void CallOff(const absl::Status& reason);
  // OK, or why it was called off.
  absl::Status status() const;

  // What CallOff aborts from now on; null: nothing. Aborted at once where it was called off before.
  void Guard(Communicator* communicator);

 private:
  const std::weak_ptr<SessionOutlet> outlet_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // All below are guarded by mutex_.
  bool waiting_ = false;
  std::optional<std::vector<std::string>> delivered_;
  absl::Status called_off_;
  Communicator* guarded_ = nullptr;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_SESSION_MEETING_H_
