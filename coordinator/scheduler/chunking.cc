#include "coordinator/scheduler/chunking.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace troupe {

namespace {

// What a prompt token adds to a step that also decodes, in microseconds; 0: not known.
double TokenUs(const PrefillLimits& limits) {
  if (limits.pace.token_us > 0) return limits.pace.token_us;
  return limits.prefill_tokens_per_us > 0 ? 1 / limits.prefill_tokens_per_us : 0;
}

}  // namespace

uint32_t PrefillBudget(const PrefillLimits& limits, uint32_t decode_rows, uint32_t prompts) {
  if (decode_rows == 0) return limits.max_step_tokens;
  if (decode_rows >= limits.max_step_tokens) return 0;
  constexpr double kUnmeasuredTokens = 256;
  const double token_us = TokenUs(limits);
  double tokens = kUnmeasuredTokens;
  if (token_us > 0) {
    const double crowding = std::max(1.0, static_cast<double>(prompts) / decode_rows);
    tokens =
        crowding * std::max(static_cast<double>(limits.mixed_us), limits.pace.decode_us) / token_us;
  }
  // Steps that were all alike do not show what a token adds: try other sizes.
  if (limits.pace.token_us == 0) tokens = std::max(tokens, 2 * limits.pace.tokens);
  tokens = std::min(tokens, static_cast<double>(limits.mixed_tokens));
  tokens = std::max(std::floor(tokens), static_cast<double>(limits.min_chunk_tokens));
  return static_cast<uint32_t>(
      std::min(tokens, static_cast<double>(limits.max_step_tokens - decode_rows)));
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
