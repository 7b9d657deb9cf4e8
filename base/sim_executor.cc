#include "base/sim_executor.h"

#include <limits>
#include <utility>

#include "base/check.h"

namespace troupe {
namespace {

constexpr int64_t kForeverNs = std::numeric_limits<int64_t>::max();
// Two streams of one seed, so that the world's draws do not shift the order's.
constexpr uint64_t kWorldStream = 0x776f726c64;
// Sets timers apart from tasks in the trace.
constexpr uint64_t kTimerMark = uint64_t{1} << 63;

}  // namespace

SimExecutor::SimExecutor(Options options)
    : options_(options),
      order_random_(MixBits(options.seed)),
      world_random_(MixBits(options.seed ^ kWorldStream)) {}

SimExecutor::~SimExecutor() {
  timers_ = TimerQueue();
  while (Step()) timers_ = TimerQueue();
  shut_down_ = true;
}

bool SimExecutor::Post(Task task) {
  CHECK(std::this_thread::get_id() == thread_) << "a simulation has one thread";
  if (shut_down_) return false;
  runnable_.push_back({++posted_count_, std::move(task)});
  return true;
}

TimerId SimExecutor::PostAfter(absl::Duration delay, Task task) {
  CHECK(std::this_thread::get_id() == thread_) << "a simulation has one thread";
  if (shut_down_) return TimerId();
  return timers_.Add(DeadlineNs(clock_, delay), std::move(task));
}

bool SimExecutor::Cancel(TimerId timer) { return timers_.Remove(timer).task != nullptr; }

bool SimExecutor::TimerIsDue() const {
  return !timers_.empty() && timers_.first_deadline_ns() <= clock_.MonotonicNs();
}

bool SimExecutor::Step() {
  const size_t choice_count = runnable_.size() + (TimerIsDue() ? 1 : 0);
  if (choice_count == 0) return false;
  CHECK_LT(step_count_, options_.max_steps)
      << "the simulation with seed " << options_.seed << " does not come to rest";
  ++step_count_;
  const size_t choice = order_random_.Below(choice_count);
  const CurrentScope scope(this);
  if (choice == runnable_.size()) {
    TimerQueue::Timer timer = timers_.PopFirst();
    Trace(timer.id.value() | kTimerMark);
    timer.task();
    return true;
  }
  std::swap(runnable_[choice], runnable_.back());
  Runnable chosen = std::move(runnable_.back());
  runnable_.pop_back();
  Trace(chosen.number);
  chosen.task();
  return true;
}

bool SimExecutor::JumpToTimer(int64_t limit_ns) {
  if (timers_.empty() || timers_.first_deadline_ns() > limit_ns) return false;
  clock_.AdvanceTo(timers_.first_deadline_ns());
  return true;
}

void SimExecutor::RunUntilIdle() {
  CHECK(Current() == nullptr) << "a simulation is run from outside of its tasks";
  while (Step() || JumpToTimer(kForeverNs)) {
  }
}

void SimExecutor::RunFor(absl::Duration duration) {
  CHECK(Current() == nullptr) << "a simulation is run from outside of its tasks";
  const int64_t end_ns = DeadlineNs(clock_, duration);
  while (Step() || JumpToTimer(end_ns)) {
  }
  clock_.AdvanceTo(end_ns);
}

bool SimExecutor::RunUntil(absl::FunctionRef<bool()> done) {
  CHECK(Current() == nullptr) << "a simulation is run from outside of its tasks";
  while (!done()) {
    if (!Step() && !JumpToTimer(kForeverNs)) return false;
  }
  return true;
}

bool SimExecutor::DriveUntil(absl::FunctionRef<bool()> done) {
  CHECK(RunUntil(done)) << "the simulation with seed " << options_.seed
                        << " came to rest before what was waited for";
  return true;
}

void SimExecutor::Trace(uint64_t number) {
  Note(number);
  Note(static_cast<uint64_t>(clock_.MonotonicNs()));
}

void SimExecutor::Note(uint64_t value) {
  trace_hash_ = MixBits(trace_hash_ * 0x9e3779b97f4a7c15 + value + 1);
}

}  // namespace troupe
