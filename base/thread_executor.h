// The executor of programs: a fixed number of threads take tasks from one queue, first in first
// out, and one more thread waits for timers.
//
// Thread-safe, except that Shutdown is called once, from outside of the executor's own tasks (the
// destructor calls it where nobody has). Tasks should not block: each one that does takes a thread
// from all the others.

#ifndef TROUPE_BASE_THREAD_EXECUTOR_H_
#define TROUPE_BASE_THREAD_EXECUTOR_H_

#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/executor.h"
#include "base/timer_queue.h"

namespace troupe {

class ThreadExecutor : public Executor {
 public:
  struct Options {
    std::string name = "actors";  // Threads are named "NAME-0", ...; at most 10 characters show.
    int thread_count = 2;
  };

  explicit ThreadExecutor(const Options& options);
  ~ThreadExecutor() override;

  bool Post(Task task) override;
  TimerId PostAfter(absl::Duration delay, Task task) override;
  bool Cancel(TimerId timer) override;
  const Clock& clock() const override { return RealClock::Get(); }
  bool DriveUntil(absl::FunctionRef<bool()> /*done*/) override { return false; }

  // Drops the timers, runs every task that is queued and every task that those post, and joins the
  // threads. Actors that are busy for ever must be stopped first, or this never returns.
  void Shutdown();

 private:
  enum class Phase { kRunning, kDraining, kShutDown };

  void RunTasks();
  void RunTimers();

  std::mutex mutex_;
  std::condition_variable task_ready_;
  // All below are guarded by mutex_.
  std::deque<Task> tasks_;
  int idle_count_ = 0;     // Threads that wait on task_ready_.
  int running_count_ = 0;  // Threads that run a task, which may post more.
  Phase phase_ = Phase::kRunning;

  std::mutex timer_mutex_;  // Never held together with mutex_.
  std::condition_variable timers_changed_;
  // Both below are guarded by timer_mutex_.
  TimerQueue timers_;
  bool timers_stopped_ = false;

  std::vector<std::thread> threads_;
  std::thread timer_thread_;
};

}  // namespace troupe

#endif  // TROUPE_BASE_THREAD_EXECUTOR_H_
