// What becomes of live sequences when the layout changes: whose KV stays valid where it lies, whose
// is worth moving, and who computes it again.
//
// A sequence keeps its pages when every rank of its new home is a machine of its old one with the
// same layers and KV heads: nothing about a page changes. Otherwise its pages move, if all of their
// parts are on ranks that are there and sending them takes less time than computing them anew.
//
// Thread model: plain values and pure functions.
#ifndef TROUPE_SHARDING_RESHARD_KV_H_
#define TROUPE_SHARDING_RESHARD_KV_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "sharding/layout_plan.h"
#include "sharding/reshard_plan.h"
#include "sharding/shard_map.h"

namespace troupe {

enum class KvFate { kKeeps, kMoves, kRecomputes };

struct LiveState {
  int home = 0;        // data-parallel index in the old map
  int64_t tokens = 0;  // computed
};

struct StateMove {
  int home = 0;  // in the new map
  KvFate fate = KvFate::kRecomputes;
  int64_t bytes = 0;  // to be moved, over all ranks of the new home
};

struct KvRates {
  double peer_bytes_per_s = 1e9;
  double prefill_tokens_per_s = 1e4;
};

// Two ranks, of maps of one model, keep the same state of a sequence: of the same layers and heads.
bool KeepSameState(const ModelDescription& model, const ShardMap& a, int rank_a, const ShardMap& b,
                   int rank_b);

// By sequence. Those that keep or could move go where they can; others, the longest first, to the
// home with the fewest tokens.
std::vector<StateMove> PlanStates(const ModelDescription& model, const ShardMap& from,
                                  const ShardMap& to, const RankMatch& match, const Sizing& sizing,
                                  const KvRates& rates, absl::Span<const LiveState> sequences);

}  // namespace troupe

#endif  // TROUPE_SHARDING_RESHARD_KV_H_
