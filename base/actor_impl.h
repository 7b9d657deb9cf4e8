// The templates behind actor.h, which includes this file; nobody else does.

#ifndef TROUPE_BASE_ACTOR_IMPL_H_
#define TROUPE_BASE_ACTOR_IMPL_H_

#include <variant>

#include "base/actor.h"

namespace troupe {
namespace internal {

// An actor with its mailbox. Producers append to `waiting_` under the lock; the run swaps the whole
// of it for the emptied `taken_`, so neither side allocates once both have grown, and the run takes
// the lock once for all messages that came in the meantime.
template <class Message>
class ActorCell final : public ActorCore, public MessageSink<Message> {
 public:
  ActorCell(Executor& executor, ActorOptions options, std::unique_ptr<Actor<Message>> actor)
      : ActorCore(executor, std::move(options)), actor_(std::move(actor)) {
    actor_->cell_ = this;
  }

  const std::shared_ptr<Lifetime>& lifetime() const override { return lifetime_ptr(); }

  ActorRef<Message> ref() {
    return ActorRef<Message>(std::shared_ptr<MessageSink<Message>>(shared_from_this(), this));
  }

  absl::Status Accept(Message&& message, Lane lane) override {
    Admission admission;
    bool must_schedule = false;
    {
      const std::lock_guard lock(mutex_);
      admission = Admit(lane, waiting_.size() + taken_left_.load(std::memory_order_relaxed));
      if (admission == Admission::kAccepted) {
        waiting_.push_back(std::move(message));
        must_schedule = ClaimSchedule();
      }
    }
    if (must_schedule) Schedule();
    if (ABSL_PREDICT_FALSE(admission != Admission::kAccepted)) return RefusalStatus(admission);
    return absl::OkStatus();
  }

 protected:
  void StartActor() override { actor_->OnStart(); }

  bool HasTaken() const override { return next_ < taken_.size(); }

  bool TakeWaiting() override {
    std::swap(taken_, waiting_);
    taken_left_.store(taken_.size(), std::memory_order_relaxed);
    return !taken_.empty();
  }

  void HandleNext() override {
    Message message = std::move(taken_[next_]);
    ++next_;
    taken_left_.store(taken_.size() - next_, std::memory_order_relaxed);
    if (next_ == taken_.size()) {
      taken_.clear();
      next_ = 0;
    }
    actor_->Handle(std::move(message));
  }

  void StopActor(const absl::Status& reason) override { actor_->OnStop(reason); }

  void DestroyActor() override {
    actor_.reset();
    next_ = 0;
    std::vector<Message>().swap(taken_);
    std::vector<Message> unhandled;  // Destroyed after the lock is released.
    const std::lock_guard lock(mutex_);
    std::swap(unhandled, waiting_);
  }

 private:
  std::vector<Message> waiting_;  // Guarded by mutex_.
  // Run; producers look at the count, which falls without the lock and rises under it only, so that
  // what they see is never too small.
  std::vector<Message> taken_;
  size_t next_ = 0;  // The first of taken_ that is not handled yet.
  std::atomic<size_t> taken_left_ = 0;
  std::unique_ptr<Actor<Message>> actor_;  // Run.
};

// Takes messages for an actor whose message type is wider. No state of its own.
template <class Message, class Wide>
class WideningSink final : public MessageSink<Message> {
 public:
  explicit WideningSink(std::shared_ptr<MessageSink<Wide>> wide) : wide_(std::move(wide)) {}

  absl::Status Accept(Message&& message, Lane lane) override {
    Wide wide(std::move(message));
    absl::Status status = wide_->Accept(std::move(wide), lane);
    if constexpr (requires { std::get<Message>(wide); }) {
      // A refused message was left in place: it goes back to its sender.
      // NOLINTNEXTLINE(bugprone-use-after-move)
      if (ABSL_PREDICT_FALSE(!status.ok())) message = std::get<Message>(std::move(wide));
    }
    return status;
  }
  const std::shared_ptr<Lifetime>& lifetime() const override { return wide_->lifetime(); }

 private:
  const std::shared_ptr<MessageSink<Wide>> wide_;
};

}  // namespace internal

template <class Message>
template <class Wide>
requires(!std::same_as<Wide, Message> && std::constructible_from<Wide, Message>)
    ActorRef<Message>::ActorRef(const ActorRef<Wide>& wide) {
  if (wide.sink_ == nullptr) return;
  sink_ = std::make_shared<internal::WideningSink<Message, Wide>>(wide.sink_);
}

template <class M>
ActorRef<M> Actor<M>::self() const {
  CHECK(cell_ != nullptr) << "an actor has no reference to itself before OnStart";
  return cell_->ref();
}

template <class M>
const std::string& Actor<M>::name() const {
  return cell_->name();
}

template <class M>
Executor& Actor<M>::executor() const {
  return cell_->executor();
}

template <class M>
ActorTimerId Actor<M>::TellAfter(absl::Duration delay, Message message) {
  return cell_->SetTimer(delay, [ref = self(), message = std::move(message)]() mutable {
    ref.TellReply(std::move(message)).IgnoreError();  // An actor that has ended needs no timer.
  });
}

template <class M>
bool Actor<M>::CancelTimer(ActorTimerId timer) {
  return cell_->CancelTimer(timer);
}

template <class M>
template <class Target>
Watch Actor<M>::Monitor(const ActorRef<Target>& target,
                        absl::AnyInvocable<Message(Down)> to_message) {
  return target.Monitor([ref = self(), to_message = std::move(to_message)](Down down) mutable {
    ref.TellReply(to_message(std::move(down)))
        .IgnoreError();  // A watcher that has ended is content.
  });
}

template <class M>
void Actor<M>::Stop(StopMode mode) {
  cell_->Stop(mode);
}

template <class M>
void Actor<M>::Fail(absl::Status reason) {
  cell_->Fail(std::move(reason));
}

template <class Message>
ActorHandle<Message>::ActorHandle(std::shared_ptr<internal::ActorCell<Message>> cell)
    : cell_(std::move(cell)), ref_(cell_->ref()) {}

template <class Message>
ActorHandle<Message>& ActorHandle<Message>::operator=(ActorHandle&& other) noexcept {
  std::swap(cell_, other.cell_);
  std::swap(ref_, other.ref_);
  return *this;
}

template <class Message>
ActorHandle<Message>::~ActorHandle() {
  if (cell_ != nullptr) cell_->Stop(StopMode::kDrop);
}

template <class Message>
void ActorHandle<Message>::Stop(StopMode mode) {
  CHECK(cell_ != nullptr) << "Stop of a null ActorHandle";
  cell_->Stop(mode);
}

template <class Message>
void ActorHandle<Message>::Join() {
  CHECK(cell_ != nullptr) << "Join of a null ActorHandle";
  cell_->Join();
}

template <class ActorType, class... Args>
ActorHandle<typename ActorType::Message> Spawn(Executor& executor, ActorOptions options,
                                               Args&&... args) {
  using Message = typename ActorType::Message;
  auto cell = std::make_shared<internal::ActorCell<Message>>(
      executor, std::move(options), std::make_unique<ActorType>(std::forward<Args>(args)...));
  cell->Start();
  return ActorHandle<Message>(std::move(cell));
}

}  // namespace troupe

#endif  // TROUPE_BASE_ACTOR_IMPL_H_
