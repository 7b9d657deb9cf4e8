#include "base/monitor.h"

namespace troupe {

std::shared_ptr<Lifetime> Lifetime::Create(std::string name) {
  return std::shared_ptr<Lifetime>(new Lifetime(std::move(name)));
}

Lifetime::~Lifetime() { End(absl::UnavailableError(name_ + " is gone")); }

bool Lifetime::ended() const {
  const std::lock_guard lock(mutex_);
  return reason_.has_value();
}

Watch Lifetime::Monitor(DownCallback callback) {
  Down down{name_, absl::OkStatus()};
  {
    const std::lock_guard lock(mutex_);
    if (!reason_.has_value()) {
      callbacks_.emplace(++last_watch_id_, std::move(callback));
      return Watch(weak_from_this(), last_watch_id_);
    }
    down.reason = *reason_;
  }
  callback(std::move(down));
  return Watch();
}

void Lifetime::End(const absl::Status& reason) {
  absl::btree_map<uint64_t, DownCallback> callbacks;
  {
    const std::lock_guard lock(mutex_);
    if (reason_.has_value()) return;
    reason_ = reason;
    std::swap(callbacks, callbacks_);
  }
  for (auto& [id, callback] : callbacks) callback(Down{name_, reason});
}

void Lifetime::Forget(uint64_t watch_id) {
  DownCallback forgotten;  // Destroyed after the lock is released.
  const std::lock_guard lock(mutex_);
  const auto found = callbacks_.find(watch_id);
  if (found == callbacks_.end()) return;
  forgotten = std::move(found->second);
  callbacks_.erase(found);
}

Watch::Watch(Watch&& other) noexcept
    : target_(std::move(other.target_)), id_(std::exchange(other.id_, 0)) {}

Watch& Watch::operator=(Watch&& other) noexcept {
  if (this == &other) return *this;
  Cancel();
  target_ = std::move(other.target_);
  id_ = std::exchange(other.id_, 0);
  return *this;
}

void Watch::Cancel() {
  const std::shared_ptr<Lifetime> target = target_.lock();
  if (target != nullptr && id_ != 0) target->Forget(id_);
  target_.reset();
  id_ = 0;
}

}  // namespace troupe
