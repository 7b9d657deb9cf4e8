// Chooses the replica that runs a sequence.
//
// Pure functions; any thread.
#ifndef TROUPE_COORDINATOR_ROUTER_H_
#define TROUPE_COORDINATOR_ROUTER_H_

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/types/span.h"

namespace troupe {

// What the router knows of a replica that is ready.
struct ReplicaLoad {
  uint64_t tokens_outstanding = 0;  // prompt tokens to compute, and sequences to decode, see below
  uint32_t running = 0;
  uint32_t waiting = 0;
  uint32_t max_batch_size = 1;
  uint32_t prefix_tokens = 0;  // leading tokens of this request that the replica holds already
};

struct RouterConfig {
  // A sequence in decode weighs as much as so many prompt tokens that wait to be computed.
  uint32_t decode_tokens = 64;
  // A prefix draws a request to its replica only as long as that one has at most so many times the
  // load of the least loaded: otherwise one popular prefix would pile everything on one replica.
  double max_imbalance = 2.0;
};

// The cost of running a request of `prompt_tokens` on this replica, in prompt tokens: what is
// queued before it, and what of its own prompt must be computed.
uint64_t RouteCost(const RouterConfig& config, const ReplicaLoad& replica, uint32_t prompt_tokens);

// Index of the replica of least cost, the lower index among equals; nullopt without replicas.
std::optional<size_t> Route(const RouterConfig& config, absl::Span<const ReplicaLoad> replicas,
                            uint32_t prompt_tokens);

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_ROUTER_H_
