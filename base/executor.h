// Where actors run. An Executor runs tasks: at once (Post) or after a delay (PostAfter). There are
// two: ThreadExecutor (thread_executor.h) for programs, and SimExecutor (sim_executor.h), which
// runs the same code on one thread, in an order drawn from a seed, under a virtual clock.
//
// Thread model: what each implementation says. No order is promised between tasks, not even between
// two that one thread posted; order is what an actor's mailbox gives.
// Ownership: an executor owns the tasks it holds and outlives the actors that were spawned on it.

#ifndef TROUPE_BASE_EXECUTOR_H_
#define TROUPE_BASE_EXECUTOR_H_

#include <cstdint>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/ids.h"

namespace troupe {

using Task = absl::AnyInvocable<void()>;
using TimerId = StrongId<struct TimerIdTag>;  // 0: no timer.

class Executor {
 public:
  Executor() = default;
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;
  virtual ~Executor() = default;

  // Runs `task` soon. False, with `task` destroyed unrun, once the executor has shut down.
  virtual bool Post(Task task) = 0;

  // Runs `task` once `delay` has passed; a delay below zero counts as zero. Timers run one after
  // the other, in order of their time, then of their setting: each is short, and posts what is
  // long. Id 0, with `task` destroyed unrun, once the executor has shut down.
  virtual TimerId PostAfter(absl::Duration delay, Task task) = 0;

  // True when the timer's task will not run; false when it ran, runs now, or is about to.
  virtual bool Cancel(TimerId timer) = 0;

  // Outlives the executor's tasks.
  virtual const Clock& clock() const = 0;

  // For code that waits for tasks of this executor from outside. A simulation runs tasks until
  // `done()`, and CHECKs that it comes true before nothing is left to run; true. An executor with
  // threads of its own returns false: the caller blocks by its own means.
  virtual bool DriveUntil(absl::FunctionRef<bool()> done) = 0;

  // The executor whose task this thread is running; null outside of tasks.
  static const Executor* Current();

 protected:
  // Marks this thread as running a task of `executor`; restores on destruction.
  class CurrentScope {
   public:
    explicit CurrentScope(const Executor* executor);
    CurrentScope(const CurrentScope&) = delete;
    CurrentScope& operator=(const CurrentScope&) = delete;
    ~CurrentScope();

   private:
    const Executor* const previous_;
  };

  // When a delay that starts now is over, in `clock`'s MonotonicNs.
  static int64_t DeadlineNs(const Clock& clock, absl::Duration delay);
};

}  // namespace troupe

#endif  // TROUPE_BASE_EXECUTOR_H_
