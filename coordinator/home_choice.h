// Which data-parallel home of a replica takes a sequence. Pure functions; any thread.
#ifndef TROUPE_COORDINATOR_HOME_CHOICE_H_
#define TROUPE_COORDINATOR_HOME_CHOICE_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"

namespace troupe {

struct HomeLoad {
  uint64_t tokens = 0;  // of the sequences that live there
  uint32_t sequences = 0;
  uint32_t prefix_tokens = 0;  // of the new sequence, whose state is there already
};

// The home with the fewest tokens, the new sequence's own counted but for those that it shares
// there; then the one with the fewest sequences, then the first. REQUIRES: homes is not empty.
inline size_t ChooseHome(absl::Span<const HomeLoad> homes, uint64_t sequence_tokens) {
  const auto cost = [&](const HomeLoad& home) {
    return home.tokens + sequence_tokens -
           (home.prefix_tokens < sequence_tokens ? home.prefix_tokens : sequence_tokens);
  };
  size_t best = 0;
  for (size_t i = 1; i < homes.size(); ++i) {
    const uint64_t a = cost(homes[i]);
    const uint64_t b = cost(homes[best]);
    if (a < b || (a == b && homes[i].sequences < homes[best].sequences)) best = i;
  }
  return best;
}

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_HOME_CHOICE_H_
