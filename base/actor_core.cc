#include "base/actor_core.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace troupe::internal {

ActorCore::ActorCore(Executor& executor, ActorOptions options)
    : executor_(executor),
      options_(std::move(options)),
      lifetime_(Lifetime::Create(options_.name)) {
  CHECK_GT(options_.mailbox_capacity, 0u) << options_.name;
  CHECK_GT(options_.batch, 0) << options_.name;
}

void ActorCore::Start() {
  {
    const std::lock_guard lock(mutex_);
    CHECK(ClaimSchedule());
  }
  Schedule();
}

void ActorCore::Stop(StopMode mode) {
  {
    const std::lock_guard lock(mutex_);
    if (phase_ == Phase::kEnded) return;
    AdvanceTo(mode == StopMode::kDrain ? Phase::kDraining : Phase::kDropping);
    if (!ClaimSchedule()) return;
  }
  Schedule();
}

void ActorCore::Join() {
  CHECK(Executor::Current() != &executor_)
      << "Join of actor " << name() << " would block the executor that has to end it";
  const auto ended = [this] {
    const std::lock_guard lock(mutex_);
    return joinable_;
  };
  if (executor_.DriveUntil(ended)) return;
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [this] { return joinable_; });
}

void ActorCore::Fail(absl::Status reason) {
  CHECK(!reason.ok()) << "actor " << name() << " fails without a reason; Stop is for that";
  const std::lock_guard lock(mutex_);
  if (reason_.ok()) reason_ = std::move(reason);
  AdvanceTo(Phase::kDropping);
}

void ActorCore::AdvanceTo(Phase phase) {
  if (phase <= phase_) return;
  phase_ = phase;
  if (phase_ >= Phase::kDropping) stop_now_.store(true, std::memory_order_relaxed);
}

ActorTimerId ActorCore::SetTimer(absl::Duration delay, Task deliver) {
  ActorTimerId id;
  {
    const std::lock_guard lock(mutex_);
    id = ActorTimerId(++last_timer_id_);
    timers_.emplace(id, TimerId());
  }
  auto fire = [core = shared_from_this(), id, deliver = std::move(deliver)]() mutable {
    TimerId fired;
    if (core->TakeTimer(id, &fired)) deliver();
  };
  const TimerId timer = executor_.PostAfter(delay, std::move(fire));
  const std::lock_guard lock(mutex_);
  const auto found = timers_.find(id);
  if (found != timers_.end()) found->second = timer;  // Else it has fired already.
  return id;
}

bool ActorCore::CancelTimer(ActorTimerId id) {
  TimerId timer;
  if (!TakeTimer(id, &timer)) return false;
  executor_.Cancel(timer);
  return true;
}

bool ActorCore::TakeTimer(ActorTimerId id, TimerId* timer) {
  const std::lock_guard lock(mutex_);
  const auto found = timers_.find(id);
  if (found == timers_.end()) return false;
  *timer = found->second;
  timers_.erase(found);
  return true;
}

ActorCore::Admission ActorCore::Admit(Lane lane, size_t depth) const {
  if (phase_ >= Phase::kDropping) return Admission::kEnded;
  if (lane == Lane::kReply) return Admission::kAccepted;
  if (phase_ == Phase::kDraining) return Admission::kEnded;
  return depth < options_.mailbox_capacity ? Admission::kAccepted : Admission::kFull;
}

absl::Status ActorCore::RefusalStatus(Admission admission) const {
  if (admission == Admission::kEnded) {
    return absl::UnavailableError(absl::StrCat("actor ", name(), " has stopped"));
  }
  return absl::ResourceExhaustedError(absl::StrCat("actor ", name(), " is behind: all ",
                                                   options_.mailbox_capacity,
                                                   " places of its mailbox are taken"));
}

void ActorCore::Schedule() {
  if (executor_.Post([core = shared_from_this()] { core->Run(); })) return;
  // Nobody else will ever run it, and this thread holds the baton: end it here.
  {
    const std::lock_guard lock(mutex_);
    if (reason_.ok() && phase_ == Phase::kRunning) {
      reason_ = absl::UnavailableError("its executor has shut down");
    }
    AdvanceTo(Phase::kDropping);
  }
  Terminate();
}

void ActorCore::Run() {
  if (!started_ && !stop_now_.load(std::memory_order_relaxed)) {
    started_ = true;
    StartActor();
  }
  for (int i = 0; i < options_.batch; ++i) {
    if (stop_now_.load(std::memory_order_relaxed)) return Terminate();
    if (!HasTaken()) {
      std::unique_lock lock(mutex_);
      if (!TakeWaiting()) {
        if (phase_ == Phase::kRunning) {
          scheduled_ = false;
          return;
        }
        lock.unlock();
        return Terminate();
      }
    }
    HandleNext();
  }
  Schedule();
}

void ActorCore::Terminate() {
  absl::Status reason;
  {
    const std::lock_guard lock(mutex_);
    reason = reason_;
  }
  if (started_) StopActor(reason);
  absl::btree_map<ActorTimerId, TimerId> timers;
  {
    const std::lock_guard lock(mutex_);
    AdvanceTo(Phase::kEnded);
    std::swap(timers, timers_);
  }
  for (const auto& [id, timer] : timers) executor_.Cancel(timer);
  DestroyActor();
  lifetime_->End(reason);
  const std::lock_guard lock(mutex_);
  joinable_ = true;
  ended_.notify_all();
}

}  // namespace troupe::internal
