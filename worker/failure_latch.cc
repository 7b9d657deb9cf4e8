#include "worker/failure_latch.h"

#include <utility>

#include "base/check.h"

namespace troupe {

void FailureLatch::Trip(const absl::Status& reason) {
  CHECK(!reason.ok()) << "a failure needs a reason";
  {
    const std::lock_guard lock(status_mutex_);
    if (!status_.ok()) return;
    status_ = reason;
  }
  tripped_.store(true, std::memory_order_release);
  const std::lock_guard lock(listeners_mutex_);
  for (const auto& [id, on_failure] : listeners_) on_failure();
  listeners_.clear();
}

absl::Status FailureLatch::status() const {
  const std::lock_guard lock(status_mutex_);
  return status_;
}

uint64_t FailureLatch::Listen(std::function<void()> on_failure) {
  const std::lock_guard lock(listeners_mutex_);
  if (tripped()) {
    on_failure();
  } else {
    listeners_[++last_id_] = std::move(on_failure);
  }
  return last_id_;
}

void FailureLatch::Forget(uint64_t id) {
  const std::lock_guard lock(listeners_mutex_);
  listeners_.erase(id);
}

}  // namespace troupe
