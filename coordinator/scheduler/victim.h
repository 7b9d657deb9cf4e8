// Who gives up memory when pages run out.
//
// Pure functions; any thread.
#ifndef TROUPE_COORDINATOR_SCHEDULER_VICTIM_H_
#define TROUPE_COORDINATOR_SCHEDULER_VICTIM_H_

#include <cstdint>
#include <optional>

#include "absl/types/span.h"
#include "coordinator/scheduler/priority.h"

namespace troupe {

struct VictimCandidate {
  Urgency urgency;
  uint32_t pages_freed = 0;  // of the groups that are short, those nobody else holds
};

// The index of the sequence to preempt for `needy`, or nothing if all are more urgent than it:
// then it waits. Those that free a page come first; then the lowest effective priority (see
// priority.h), then the latest arrival, then the most pages freed. Taking only from less urgent
// sequences is what lets the most urgent one always proceed.
std::optional<size_t> ChooseVictim(const Urgency& needy,
                                   absl::Span<const VictimCandidate> candidates);

// Whether one of these candidates, which come in order of growing urgency, is chosen whatever those
// from `next` on hold. Asked before each, it spares looking at all of them.
bool IsVictimFound(absl::Span<const VictimCandidate> candidates, const Urgency& next);

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_SCHEDULER_VICTIM_H_
