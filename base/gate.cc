#include "base/gate.h"

#include "base/check.h"

namespace troupe {

Gate::~Gate() { CHECK_EQ(entrant_count(), 0) << "a Gate was destroyed with somebody inside"; }

std::optional<Gate::Pass> Gate::Enter() {
  const std::lock_guard lock(mutex_);
  if (closed_) return std::nullopt;
  ++entrant_count_;
  return Pass(this);
}

void Gate::BeginClose() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
}

void Gate::Close() {
  std::unique_lock lock(mutex_);
  closed_ = true;
  all_left_.wait(lock, [this] { return entrant_count_ == 0; });
}

bool Gate::closed() const {
  const std::lock_guard lock(mutex_);
  return closed_;
}

int64_t Gate::entrant_count() const {
  const std::lock_guard lock(mutex_);
  return entrant_count_;
}

void Gate::Leave() {
  const std::lock_guard lock(mutex_);
  // Notified under the lock: the closer may destroy the gate as soon as it sees zero.
  if (--entrant_count_ == 0) all_left_.notify_all();
}

}  // namespace troupe
