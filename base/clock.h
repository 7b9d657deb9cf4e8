// Time, as something that is handed in, so that a simulation can own it.
//
// Clock::Now is wall time, for people and for deadlines that cross the wire; it may jump.
// Clock::MonotonicNs never goes back; durations are differences of it. Every clock is thread-safe,
// except that VirtualClock::Advance belongs to the one thread that runs the simulation.

#ifndef TROUPE_BASE_CLOCK_H_
#define TROUPE_BASE_CLOCK_H_

#include <atomic>
#include <cstdint>

#include "absl/time/time.h"

namespace troupe {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;
  // Nanoseconds since a start that only this clock knows.
  virtual int64_t MonotonicNs() const = 0;
};

// The machine's clocks.
class RealClock : public Clock {
 public:
  absl::Time Now() const override;
  int64_t MonotonicNs() const override;

  // Never destroyed.
  static const RealClock& Get();
};

// Stands still until it is advanced. Starts at 2000-01-01T00:00:00Z.
class VirtualClock : public Clock {
 public:
  absl::Time Now() const override;
  int64_t MonotonicNs() const override { return now_ns_.load(std::memory_order_relaxed); }

  // `now_ns` is not before MonotonicNs().
  void AdvanceTo(int64_t now_ns);
  void Advance(absl::Duration duration);

 private:
  std::atomic<int64_t> now_ns_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_BASE_CLOCK_H_
