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

}  // namespace troupe
