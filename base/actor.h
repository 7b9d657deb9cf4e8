// Actors: whatever owns state is one, and only its own handlers touch that state.
//
//   struct Add { int amount; };
//   struct Get { ActorRef<int> reply_to; };
//   using CounterMessage = std::variant<Add, Get>;
//
//   class Counter : public Actor<CounterMessage> {
//     void Handle(CounterMessage message) override { std::visit(Overloaded{...}, message); }
//   };
//
//   ActorHandle<CounterMessage> counter = Spawn<Counter>(executor, {.name = "counter"});
//   TROUPE_RETURN_IF_ERROR(counter.ref().Tell(Add{1}));
//
// Thread model: the handlers of one actor run one at a time, on any thread of its executor; they
// never block. Messages from one sender are handled in the order that sender told them, replies and
// timers among them. ActorRef and ActorHandle may be used from any thread.
//
// Ownership: the ActorHandle owns the actor: destroying it stops the actor (kDrop) without waiting.
// ActorRef keeps nothing alive. The actor object is destroyed on its executor when it ends: what it
// points to outlives Join, or else the executor, which itself outlives the handles.
//
// Mailbox: Tell refuses a message over the mailbox's capacity with ResourceExhausted; the sender
// decides what gives way. TellReply never refuses for want of room, so it is only for the answer to
// what the receiver itself asked for: the receiver's own outstanding requests are its bound, and a
// lost answer would leave it waiting for ever. Timers and death notices, which an actor also asks
// for itself, come the same way.

#ifndef TROUPE_BASE_ACTOR_H_
#define TROUPE_BASE_ACTOR_H_

#include <atomic>
#include <concepts>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/actor_core.h"
#include "base/check.h"
#include "base/executor.h"
#include "base/monitor.h"

namespace troupe {

// Where messages go: an actor's mailbox, or at the edge whatever takes an actor's place (inbox.h).
template <class Message>
class MessageSink {
 public:
  using Lane = internal::Lane;

  virtual ~MessageSink() = default;
  // On error `message` is left as it was. Thread-safe, does not block.
  virtual absl::Status Accept(Message&& message, Lane lane) = 0;
  virtual const std::shared_ptr<Lifetime>& lifetime() const = 0;
};

// Lets code tell one actor messages and watch its end. A copyable value; null until assigned.
template <class Message>
class ActorRef {
 public:
  ActorRef() = default;
  explicit ActorRef(std::shared_ptr<MessageSink<Message>> sink) : sink_(std::move(sink)) {}

  // A reference to an actor whose message can be made from ours, such as a variant that holds it.
  template <class Wide>
  requires(!std::same_as<Wide, Message> && std::constructible_from<Wide, Message>)
      ActorRef(const ActorRef<Wide>& wide);  // NOLINT(google-explicit-constructor)

  // ResourceExhausted: the mailbox is full; retry later or let something go.
  // Unavailable: the actor has stopped or is stopping, or this is null.
  // On error a `message` that was passed by std::move is left as it was.
  absl::Status Tell(Message&& message) const { return Accept(std::move(message), Lane::kRequest); }
  absl::Status Tell(const Message& message) const {
    Message copy = message;
    return Accept(std::move(copy), Lane::kRequest);
  }

  // Answers what this actor asked for; see the top of this file. Only Unavailable is possible.
  absl::Status TellReply(Message&& message) const {
    return Accept(std::move(message), Lane::kReply);
  }

  // Calls `callback` once when the actor ends, at once where it has (or where this is null), for as
  // long as the Watch is kept. An actor uses Actor::Monitor instead.
  [[nodiscard]] Watch Monitor(DownCallback callback) const {
    if (sink_ != nullptr) return sink_->lifetime()->Monitor(std::move(callback));
    callback(Down{"null", NullStatus()});
    return Watch();
  }

  bool alive() const { return sink_ != nullptr && !sink_->lifetime()->ended(); }
  std::string name() const { return sink_ == nullptr ? "null" : sink_->lifetime()->name(); }
  explicit operator bool() const { return sink_ != nullptr; }

  // Equal: the same actor.
  friend bool operator==(const ActorRef& a, const ActorRef& b) { return a.Key() == b.Key(); }
  template <class H>
  friend H AbslHashValue(H state, const ActorRef& ref) {
    return H::combine(std::move(state), ref.Key());
  }

 private:
  using Lane = internal::Lane;
  template <class Other>
  friend class ActorRef;

  static absl::Status NullStatus() { return absl::UnavailableError("no actor: null reference"); }
  absl::Status Accept(Message&& message, Lane lane) const {
    if (sink_ == nullptr) return NullStatus();
    return sink_->Accept(std::move(message), lane);
  }
  const Lifetime* Key() const { return sink_ == nullptr ? nullptr : sink_->lifetime().get(); }

  std::shared_ptr<MessageSink<Message>> sink_;
};

namespace internal {
template <class Message>
class ActorCell;
}  // namespace internal

// Base of every actor. The protected functions may be called from OnStart on, not in a constructor.
template <class M>
class Actor {
 public:
  using Message = M;

  Actor() = default;
  Actor(const Actor&) = delete;
  Actor& operator=(const Actor&) = delete;
  virtual ~Actor() = default;

 protected:
  // Before the first message.
  virtual void OnStart() {}
  virtual void Handle(Message message) = 0;
  // After the last message, before the destructor; not called where OnStart was not. `reason` is OK
  // when stopped, else what Fail said.
  virtual void OnStop(const absl::Status& reason) {}

  ActorRef<Message> self() const;
  const std::string& name() const;
  Executor& executor() const;
  const Clock& clock() const { return executor().clock(); }

  // Tells this actor `message` after `delay`. Cancelled when the actor ends.
  ActorTimerId TellAfter(absl::Duration delay, Message message);
  // False when the message has been handled or is in the mailbox already.
  bool CancelTimer(ActorTimerId timer);

  // Tells this actor `to_message(down)` when `target` ends, at once where it has, for as long as
  // the Watch is kept.
  template <class Target>
  [[nodiscard]] Watch Monitor(const ActorRef<Target>& target,
                              absl::AnyInvocable<Message(Down)> to_message);
  // The same for an actor that has Down among its messages.
  template <class Target>
  requires std::constructible_from<Message, Down>
  [[nodiscard]] Watch Monitor(const ActorRef<Target>& target) {
    return Monitor(target, [](Down down) { return Message(std::move(down)); });
  }

  // Ends this actor once the current handler has returned (and, kDrain, the mailbox is empty).
  void Stop(StopMode mode);
  // Ends it once the current handler has returned; who monitors it is told `reason`, which is not
  // OK.
  void Fail(absl::Status reason);

 private:
  friend class internal::ActorCell<M>;

  internal::ActorCell<M>* cell_ = nullptr;
};

// Owns one actor. Movable; null until assigned.
template <class Message>
class ActorHandle {
 public:
  ActorHandle() = default;
  explicit ActorHandle(std::shared_ptr<internal::ActorCell<Message>> cell);
  ActorHandle(ActorHandle&&) noexcept = default;
  ActorHandle& operator=(ActorHandle&& other) noexcept;
  ~ActorHandle();

  explicit operator bool() const { return cell_ != nullptr; }
  const ActorRef<Message>& ref() const { return ref_; }

  // Asks the actor to end and returns. A later kDrop overrides an earlier kDrain.
  void Stop(StopMode mode);
  // Blocks until the actor has ended (somebody has stopped it, or it stops itself), its object is
  // destroyed and its death notices are delivered. Not from a task of the same executor.
  void Join();

 private:
  std::shared_ptr<internal::ActorCell<Message>> cell_;
  ActorRef<Message> ref_;
};

// Makes an actor of type `ActorType` from `args` and starts it.
template <class ActorType, class... Args>
ActorHandle<typename ActorType::Message> Spawn(Executor& executor, ActorOptions options,
                                               Args&&... args);

// For std::visit over a message: std::visit(Overloaded{[](Add& add) {...}, ...}, message).
template <class... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};
template <class... Functions>
Overloaded(Functions...) -> Overloaded<Functions...>;

}  // namespace troupe

#include "base/actor_impl.h"  // IWYU pragma: export

#endif  // TROUPE_BASE_ACTOR_H_
