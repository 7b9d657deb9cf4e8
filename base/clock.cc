#include "base/clock.h"

#include <chrono>

#include "absl/time/clock.h"
#include "base/check.h"

namespace troupe {

absl::Time RealClock::Now() const { return absl::Now(); }

int64_t RealClock::MonotonicNs() const {
  return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}

const RealClock& RealClock::Get() {
  static const auto* const clock = new RealClock;
  return *clock;
}

absl::Time VirtualClock::Now() const {
  constexpr int64_t kStartSeconds = 946684800;  // 2000-01-01T00:00:00Z
  return absl::FromUnixSeconds(kStartSeconds) + absl::Nanoseconds(MonotonicNs());
}

void VirtualClock::AdvanceTo(int64_t now_ns) {
  CHECK_GE(now_ns, MonotonicNs());
  now_ns_.store(now_ns, std::memory_order_relaxed);
}

void VirtualClock::Advance(absl::Duration duration) {
  AdvanceTo(MonotonicNs() + absl::ToInt64Nanoseconds(duration));
}

}  // namespace troupe
