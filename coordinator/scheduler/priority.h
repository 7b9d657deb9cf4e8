// Who comes first: priority with ageing.
//
//     effective priority(now) = priority + (now - arrival) / ageing
//
// `ageing` is the waiting time that is worth one level. Since everybody ages at the same rate, the
// order of two sequences never changes while they live: it is that of
//
//     due = arrival - priority * ageing
//
// and a sequence of priority p is overtaken only by those that arrive within (100 - p) * ageing
// after it. A fixed order is what rules out livelock when sequences take memory from each other.
//
// Pure functions; any thread.
#ifndef TROUPE_COORDINATOR_SCHEDULER_PRIORITY_H_
#define TROUPE_COORDINATOR_SCHEDULER_PRIORITY_H_

#include <cstdint>
#include <tuple>

namespace troupe {

inline constexpr int32_t kMaxPriority = 100;  // and -kMaxPriority the least

// Smaller is more urgent. Ids make the order total.
struct Urgency {
  int64_t due_us = 0;
  int64_t arrival_us = 0;
  uint64_t id = 0;

  friend constexpr bool operator<(const Urgency& a, const Urgency& b) {
    return std::tie(a.due_us, a.arrival_us, a.id) < std::tie(b.due_us, b.arrival_us, b.id);
  }
};

constexpr Urgency MakeUrgency(int32_t priority, int64_t arrival_us, uint64_t id,
                              int64_t ageing_us_per_level) {
  return {arrival_us - priority * ageing_us_per_level, arrival_us, id};
}

constexpr double EffectivePriority(int32_t priority, int64_t arrival_us, int64_t now_us,
                                   int64_t ageing_us_per_level) {
  return priority +
         static_cast<double>(now_us - arrival_us) / static_cast<double>(ageing_us_per_level);
}

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_SCHEDULER_PRIORITY_H_
