#include "worker/micro_batches.h"

#include <algorithm>

namespace troupe {

int64_t PartTokens(absl::string_view device) {
  // A GPU reads all weights in the time that it takes for the products of about so many tokens.
  return device == "cpu" ? 32 : 256;
}

int MicroBatches(int stages, int64_t tokens, int64_t part_tokens) {
  if (stages <= 1) return 1;
  const auto time = [&](int64_t parts) {
    const double part =
        static_cast<double>(part_tokens) + static_cast<double>(tokens) / static_cast<double>(parts);
    return static_cast<double>(parts + stages - 1) * part;
  };
  int best = 1;
  for (int parts = 2; parts <= std::min<int64_t>(kMostMicroBatches, tokens); ++parts) {
    if (time(parts) < time(best)) best = parts;
  }
  return best;
}

}  // namespace troupe
