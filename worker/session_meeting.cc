#include "worker/session_meeting.h"

#include <utility>

#include "base/check.h"
#include "worker/messages.h"

namespace troupe {

absl::StatusOr<std::vector<std::string>> SessionMeeting::Exchange(std::string mine) {
  {
    const std::lock_guard lock(mutex_);
    if (!called_off_.ok()) return called_off_;
    waiting_ = true;
  }
  if (const std::shared_ptr<SessionOutlet> outlet = outlet_.lock()) {
    outlet->Contribute(std::move(mine));
  }
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return delivered_.has_value() || !called_off_.ok(); });
  waiting_ = false;
  if (!called_off_.ok()) return called_off_;
  return *std::exchange(delivered_, std::nullopt);
}

absl::Status SessionMeeting::Deliver(const v1::Meeting& meeting) {
  const std::lock_guard lock(mutex_);
  if (!waiting_ || delivered_.has_value()) {
    return absl::FailedPreconditionError("found a meeting to which this rank did not contribute");
  }
  delivered_.emplace(meeting.contributions().begin(), meeting.contributions().end());
  changed_.notify_all();
  return absl::OkStatus();
}

void SessionMeeting::CallOff(const absl::Status& reason) {
  CHECK(!reason.ok());
  const std::lock_guard lock(mutex_);
  if (!called_off_.ok()) return;
  called_off_ = reason;
  changed_.notify_all();
  // Under the lock, so that it is not destroyed meanwhile.
  if (guarded_ != nullptr) guarded_->Abort(reason);
}

absl::Status SessionMeeting::status() const {
  const std::lock_guard lock(mutex_);
  return called_off_;
}

void SessionMeeting::Guard(Communicator* communicator) {
  const std::lock_guard lock(mutex_);
  guarded_ = communicator;
  if (guarded_ != nullptr && !called_off_.ok()) guarded_->Abort(called_off_);
}

}  // namespace troupe
