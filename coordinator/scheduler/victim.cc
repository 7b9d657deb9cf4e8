#include "coordinator/scheduler/victim.h"

#include <tuple>

namespace troupe {

std::optional<size_t> ChooseVictim(const Urgency& needy,
                                   absl::Span<const VictimCandidate> candidates) {
  const auto score = [](const VictimCandidate& c) {
    return std::make_tuple(c.pages_freed > 0, c.urgency.due_us, c.urgency.arrival_us, c.pages_freed,
                           c.urgency.id);
  };
  std::optional<size_t> best;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!(needy < candidates[i].urgency)) continue;
    if (!best || score(candidates[i]) > score(candidates[*best])) best = i;
  }
  return best;
}

bool IsVictimFound(absl::Span<const VictimCandidate> candidates, const Urgency& next) {
  if (candidates.empty()) return false;
  // Only among those of one time does it matter how many pages each frees.
  const Urgency& last = candidates.back().urgency;
  if (last.due_us == next.due_us && last.arrival_us == next.arrival_us) return false;
  for (size_t i = candidates.size(); i-- > 0;) {
    const VictimCandidate& c = candidates[i];
    if (c.urgency.due_us != last.due_us || c.urgency.arrival_us != last.arrival_us) break;
    if (c.pages_freed > 0) return true;
  }
  return false;
}

}  // namespace troupe
