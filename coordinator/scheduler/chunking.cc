#include "coordinator/scheduler/chunking.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace troupe {

uint32_t PrefillBudget(const PrefillLimits& limits, uint32_t decode_rows) {
  if (decode_rows == 0) return limits.max_step_tokens;
  if (decode_rows >= limits.max_step_tokens) return 0;
  double tokens = limits.mixed_tokens;
  if (limits.prefill_tokens_per_us > 0) {
    tokens = std::min(tokens, limits.prefill_tokens_per_us * static_cast<double>(limits.mixed_us));
  }
  tokens = std::max(std::floor(tokens), static_cast<double>(limits.min_chunk_tokens));
  return std::min(static_cast<uint32_t>(tokens), limits.max_step_tokens - decode_rows);
}

std::vector<uint32_t> ShareBudget(uint32_t budget, uint32_t min_chunk,
                                  absl::Span<const uint32_t> remaining) {
  std::vector<uint32_t> chunks(remaining.size(), 0);
  if (remaining.empty() || budget == 0) return chunks;
  std::vector<uint32_t> order(remaining.size());
  std::iota(order.begin(), order.end(), 0);
  const auto shorter = [&](uint32_t a, uint32_t b) { return remaining[a] < remaining[b]; };
  std::stable_sort(order.begin() + 1, order.end(), shorter);
  const size_t most = std::max<size_t>(1, budget / std::max(1u, min_chunk));
  order.resize(std::min(order.size(), most));
  std::stable_sort(order.begin(), order.end(), shorter);

  uint32_t left = budget;
  for (size_t i = 0; i < order.size(); ++i) {
    const uint32_t share = left / static_cast<uint32_t>(order.size() - i);
    const uint32_t chunk = std::min(remaining[order[i]], share);
    chunks[order[i]] = chunk;
    left -= chunk;
  }
  return chunks;
}

}  // namespace troupe
