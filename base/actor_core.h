// The part of an actor that does not depend on its message type: its place on the executor, its
// phases from start to end, its timers. Internal to actor.h.
//
// Thread model: at most one thread at a time is in Run, which alone touches what is marked "run".
// `scheduled_` says that a run is queued or in progress; whoever turns it from false to true posts
// the run, so the baton passes through mutex_ or through the executor's queue, never around them.
// Ownership: a queued run, a pending timer, the handle and every ActorRef share the core; the actor
// object inside is destroyed when it ends, whoever still holds a reference.

#ifndef TROUPE_BASE_ACTOR_CORE_H_
#define TROUPE_BASE_ACTOR_CORE_H_

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/executor.h"
#include "base/ids.h"
#include "base/monitor.h"

namespace troupe {

struct ActorOptions {
  std::string name = "actor";
  size_t mailbox_capacity = 1024;  // Messages that wait; Tell refuses what is over it.
  int batch = 64;  // Messages handled before other actors of the executor get their turn.
};

enum class StopMode {
  kDrain,  // Refuse new messages, handle those accepted, then end. Replies are still accepted.
  kDrop,   // End after the message being handled; the rest are destroyed unhandled.
};

// A timer of one actor; 0 is none.
using ActorTimerId = StrongId<struct ActorTimerIdTag>;

namespace internal {

// Requests are bounded by the mailbox; replies by what their receiver has asked for.
enum class Lane { kRequest, kReply };

class ActorCore : public std::enable_shared_from_this<ActorCore> {
 public:
  ActorCore(Executor& executor, ActorOptions options);
  ActorCore(const ActorCore&) = delete;
  ActorCore& operator=(const ActorCore&) = delete;
  virtual ~ActorCore() = default;

  Executor& executor() const { return executor_; }
  const std::string& name() const { return options_.name; }
  const std::shared_ptr<Lifetime>& lifetime_ptr() const { return lifetime_; }

  // Queues the first run. Called once.
  void Start();
  void Stop(StopMode mode);
  // Blocks until the actor is destroyed and its death notices are delivered.
  void Join();

  // From the actor's own handlers only:
  void Fail(absl::Status reason);
  ActorTimerId SetTimer(absl::Duration delay, Task deliver);
  bool CancelTimer(ActorTimerId id);

 protected:
  enum class Admission { kAccepted, kFull, kEnded };

  // mutex_ is held; `depth` messages are waiting.
  Admission Admit(Lane lane, size_t depth) const;
  absl::Status RefusalStatus(Admission admission) const;
  // mutex_ is held. True when the caller must call Schedule once it has let go of it.
  bool ClaimSchedule() { return !std::exchange(scheduled_, true); }
  void Schedule();

  // What the message type decides; all are called in a run.
  virtual void StartActor() = 0;
  virtual bool HasTaken() const = 0;  // Of messages moved over by TakeWaiting, is one left?
  virtual bool TakeWaiting() = 0;     // mutex_ is held. False where none waits.
  virtual void HandleNext() = 0;      // HasTaken().
  virtual void StopActor(const absl::Status& reason) = 0;
  virtual void DestroyActor() = 0;  // The actor, then all messages.

  std::mutex mutex_;

 private:
  // In order: an actor only moves forward.
  enum class Phase { kRunning, kDraining, kDropping, kEnded };

  void Run();
  void Terminate();
  // mutex_ is held.
  void AdvanceTo(Phase phase);
  // True for one caller: either the timer fires or it is cancelled.
  bool TakeTimer(ActorTimerId id, TimerId* timer);

  Executor& executor_;
  const ActorOptions options_;
  const std::shared_ptr<Lifetime> lifetime_;

  bool started_ = false;                // Run.
  std::atomic<bool> stop_now_ = false;  // phase_ >= kDropping, for a look without the lock.

  // All below are guarded by mutex_.
  Phase phase_ = Phase::kRunning;
  bool scheduled_ = false;
  absl::Status reason_;
  absl::btree_map<ActorTimerId, TimerId> timers_;
  uint64_t last_timer_id_ = 0;
  bool joinable_ = false;
  std::condition_variable ended_;
};

}  // namespace internal
}  // namespace troupe

#endif  // TROUPE_BASE_ACTOR_CORE_H_
