#include "base/thread_executor.h"

#include <pthread.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace troupe {
namespace {

void NameThisThread(const std::string& name) {
  constexpr size_t kMaxNameLength = 15;  // The kernel's limit.
  pthread_setname_np(pthread_self(), name.substr(0, kMaxNameLength).c_str());
}

}  // namespace

ThreadExecutor::ThreadExecutor(const Options& options) {
  CHECK_GT(options.thread_count, 0);
  const std::string prefix = options.name.substr(0, 10);
  timer_thread_ = std::thread([this, prefix] {
    NameThisThread(prefix + "-time");
    RunTimers();
  });
  for (int i = 0; i < options.thread_count; ++i) {
    threads_.emplace_back([this, name = absl::StrCat(prefix, "-", i)] {
      NameThisThread(name);
      RunTasks();
    });
  }
}

ThreadExecutor::~ThreadExecutor() {
  if (timer_thread_.joinable()) Shutdown();
}

bool ThreadExecutor::Post(Task task) {
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    if (phase_ == Phase::kShutDown) return false;
    tasks_.push_back(std::move(task));
    wake = idle_count_ > 0;
  }
  if (wake) task_ready_.notify_one();
  return true;
}

void ThreadExecutor::RunTasks() {
  const CurrentScope scope(this);
  std::unique_lock lock(mutex_);
  while (true) {
    if (!tasks_.empty()) {
      Task task = std::move(tasks_.front());
      tasks_.pop_front();
      ++running_count_;
      lock.unlock();
      task();
      task = nullptr;  // What it captured may post, and counts as running.
      lock.lock();
      --running_count_;
      continue;
    }
    if (phase_ == Phase::kDraining && running_count_ == 0) phase_ = Phase::kShutDown;
    if (phase_ == Phase::kShutDown) {
      task_ready_.notify_all();
      return;
    }
    ++idle_count_;
    task_ready_.wait(lock);
    --idle_count_;
  }
}

TimerId ThreadExecutor::PostAfter(absl::Duration delay, Task task) {
  const int64_t deadline_ns = DeadlineNs(clock(), delay);
  TimerId id;
  bool is_first = false;
  {
    const std::lock_guard lock(timer_mutex_);
    if (timers_stopped_) return TimerId();
    is_first = timers_.empty() || deadline_ns < timers_.first_deadline_ns();
    id = timers_.Add(deadline_ns, std::move(task));
  }
  if (is_first) timers_changed_.notify_one();
  return id;
}

bool ThreadExecutor::Cancel(TimerId timer) {
  TimerQueue::Timer cancelled;  // Destroyed after the lock is released.
  const std::lock_guard lock(timer_mutex_);
  cancelled = timers_.Remove(timer);
  return cancelled.task != nullptr;
}

void ThreadExecutor::RunTimers() {
  const CurrentScope scope(this);
  std::unique_lock lock(timer_mutex_);
  while (!timers_stopped_) {
    if (timers_.empty()) {
      timers_changed_.wait(lock);
      continue;
    }
    const int64_t deadline_ns = timers_.first_deadline_ns();
    if (clock().MonotonicNs() < deadline_ns) {
      const std::chrono::steady_clock::time_point deadline{std::chrono::nanoseconds(deadline_ns)};
      timers_changed_.wait_until(lock, deadline);
      continue;
    }
    TimerQueue::Timer timer = timers_.PopFirst();
    lock.unlock();
    timer.task();
    timer.task = nullptr;
    lock.lock();
  }
}

void ThreadExecutor::Shutdown() {
  CHECK(Current() != this) << "an executor cannot wait for its own task";
  TimerQueue dropped;
  {
    const std::lock_guard lock(timer_mutex_);
    CHECK(!timers_stopped_) << "Shutdown is called once";
    timers_stopped_ = true;
    std::swap(dropped, timers_);
  }
  timers_changed_.notify_one();
  timer_thread_.join();
  dropped = TimerQueue();
  {
    const std::lock_guard lock(mutex_);
    phase_ = Phase::kDraining;
  }
  task_ready_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

}  // namespace troupe
