#include "base/executor.h"

#include <algorithm>

namespace troupe {
namespace {
thread_local const Executor* current_executor = nullptr;
}  // namespace

const Executor* Executor::Current() { return current_executor; }

Executor::CurrentScope::CurrentScope(const Executor* executor) : previous_(current_executor) {
  current_executor = executor;
}

Executor::CurrentScope::~CurrentScope() { current_executor = previous_; }

int64_t Executor::DeadlineNs(const Clock& clock, absl::Duration delay) {
  // A century is for ever, and keeps the sum from overflowing.
  constexpr absl::Duration kLongest = absl::Hours(24 * 36525);
  return clock.MonotonicNs() +
         absl::ToInt64Nanoseconds(std::clamp(delay, absl::ZeroDuration(), kLongest));
}

}  // namespace troupe
