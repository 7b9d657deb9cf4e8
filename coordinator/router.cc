#include "coordinator/router.h"

#include <algorithm>

namespace troupe {
namespace {

uint64_t QueuedCost(const RouterConfig& config, const ReplicaLoad& replica) {
  return replica.tokens_outstanding +
         uint64_t{config.decode_tokens} * (replica.running + replica.waiting);
}

}  // namespace

uint64_t RouteCost(const RouterConfig& config, const ReplicaLoad& replica, uint32_t prompt_tokens) {
  return QueuedCost(config, replica) +
         (prompt_tokens - std::min(prompt_tokens, replica.prefix_tokens));
}

std::optional<size_t> Route(const RouterConfig& config, absl::Span<const ReplicaLoad> replicas,
                            uint32_t prompt_tokens) {
  if (replicas.empty()) return std::nullopt;
  uint64_t least_queued = UINT64_MAX;
  for (const ReplicaLoad& replica : replicas) {
    least_queued = std::min(least_queued, QueuedCost(config, replica));
  }
  // One batch of slack: below it, nobody waits for anybody.
  const auto limit =
      static_cast<uint64_t>(config.max_imbalance * static_cast<double>(least_queued));
  std::optional<size_t> best;
  uint64_t best_cost = 0;
  for (size_t i = 0; i < replicas.size(); ++i) {
    ReplicaLoad replica = replicas[i];
    const uint64_t slack = uint64_t{config.decode_tokens} * replica.max_batch_size;
    if (QueuedCost(config, replica) > std::max(limit, slack)) replica.prefix_tokens = 0;
    const uint64_t cost = RouteCost(config, replica, prompt_tokens);
    if (!best.has_value() || cost < best_cost) {
      best = i;
      best_cost = cost;
    }
  }
  return best;
}

}  // namespace troupe
