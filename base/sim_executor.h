// The executor of simulations: the real actors, one thread, an order drawn from a seed, and a clock
// that moves only when nothing is left to run. The same program with the same seed runs the same
// tasks in the same order at the same virtual times, so a failure found at a seed is replayed by
// it.
//
// At each step one of the runnable tasks, or the first timer that is due, is picked at random. When
// none is, the clock jumps to the next timer.
//
// Thread model: everything happens on the thread that made it, CHECKed in Post. What the program
// does must depend on nothing but messages, clock() and random(): no pointers' order, no threads.
// Ownership: owns tasks and timers; the destructor runs the runnable tasks, so that stopped actors
// end, and drops the timers.

#ifndef TROUPE_BASE_SIM_EXECUTOR_H_
#define TROUPE_BASE_SIM_EXECUTOR_H_

#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "base/executor.h"
#include "base/random.h"
#include "base/timer_queue.h"

namespace troupe {

class SimExecutor : public Executor {
 public:
  struct Options {
    uint64_t seed = 1;
    // A simulation that never comes to rest CHECKs after so many steps, naming its seed.
    uint64_t max_steps = 100'000'000;
  };

  explicit SimExecutor(Options options);
  ~SimExecutor() override;

  bool Post(Task task) override;
  TimerId PostAfter(absl::Duration delay, Task task) override;
  bool Cancel(TimerId timer) override;
  const Clock& clock() const override { return clock_; }
  bool DriveUntil(absl::FunctionRef<bool()> done) override;

  // Each runs steps on this thread, from outside of tasks:
  // until neither tasks nor timers are left (never, where timers set timers for ever);
  void RunUntilIdle();
  // until virtual time has moved on by `duration`, timers due at that very instant included;
  void RunFor(absl::Duration duration);
  // until `done()`, asked before every step. False when nothing is left to run before that.
  [[nodiscard]] bool RunUntil(absl::FunctionRef<bool()> done);

  // Randomness of the simulated world (delays, losses, crashes), replayed by the same seed.
  SeededRandom& random() { return world_random_; }

  // A digest of every step so far (which task, at what virtual time) and of what Note was given.
  // Equal digests of two runs mean equal runs.
  uint64_t trace_hash() const { return trace_hash_; }
  // Makes `value` part of the trace: what a test has observed.
  void Note(uint64_t value);

  uint64_t seed() const { return options_.seed; }
  uint64_t step_count() const { return step_count_; }

 private:
  struct Runnable {
    uint64_t number;  // The how-manieth task to be posted, for the trace.
    Task task;
  };

  bool TimerIsDue() const;
  // Runs one task or due timer. False where there is none.
  bool Step();
  // Moves the clock to the next timer, if there is one by `limit_ns`.
  bool JumpToTimer(int64_t limit_ns);
  void Trace(uint64_t number);

  const Options options_;
  const std::thread::id thread_ = std::this_thread::get_id();
  VirtualClock clock_;
  SeededRandom order_random_;
  SeededRandom world_random_;
  std::vector<Runnable> runnable_;
  TimerQueue timers_;
  uint64_t posted_count_ = 0;
  uint64_t step_count_ = 0;
  uint64_t trace_hash_ = 0;
  bool shut_down_ = false;
};

}  // namespace troupe

#endif  // TROUPE_BASE_SIM_EXECUTOR_H_
