// What a change from one shard map to another moves: for each rank what it keeps, loads and drops.
//
// A part of the weights that a rank holds under both maps stays where it is. One that another rank
// of the old map holds comes from there, the requests spread over its holders; any other comes from
// the checkpoint, of another machine where this one has none. The old map serves until the new one
// is complete, so that at its peak a rank holds both.
//
// Thread model: plain values and pure functions: coordinator and ranks plan the same from the same
// maps. Errors: InvalidArgument for a change that changes nothing or maps that do not fit the
// model, ResourceExhausted, with the arithmetic, for what does not fit in memory,
// FailedPrecondition for a rank that has no checkpoint and nobody to read from.
#ifndef TROUPE_SHARDING_RESHARD_PLAN_H_
#define TROUPE_SHARDING_RESHARD_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "sharding/layout_plan.h"
#include "sharding/shard_map.h"
#include "sharding/weight_parts.h"

namespace troupe {

inline constexpr int kNoRank = -1;

// The machines of two maps.
struct RankMatch {
  std::vector<int>
      old_of_new;  // by new rank: what that machine is in the old map; kNoRank: nothing
  std::vector<bool> old_alive;  // by old rank
  // By old rank: weights can be read from it; empty: from all that are alive.
  std::vector<bool> old_serves = {};
  // By new rank: its machine has no checkpoint, all that it lacks comes from peers; empty: none.
  std::vector<bool> new_lacks = {};

  bool Serves(int old_rank) const {
    return old_alive[old_rank] && (old_serves.empty() || old_serves[old_rank]);
  }
};

// The same names are the same machines; `alive` says of each old name whether it is there.
RankMatch MatchRanks(absl::Span<const std::string> old_names,
                     absl::Span<const std::string> new_names, const std::vector<bool>& old_alive);

struct ReshardRates {
  double peer_bytes_per_s = 1e9;  // in and out of a rank
  double disk_bytes_per_s = 5e8;  // of each rank
};

struct PartLoad {
  WeightPart part;
  int64_t bytes = 0;
  int from_old_rank = kNoRank;  // kNoRank: the checkpoint
};

struct RankMove {
  int old_rank = kNoRank;
  int new_rank = kNoRank;
  std::vector<WeightPart> keeps;
  std::vector<PartLoad> loads;
  std::vector<WeightPart> drops;
  int64_t keep_bytes = 0;
  int64_t peer_bytes = 0;
  int64_t disk_bytes = 0;
  int64_t drop_bytes = 0;
  int64_t sent_bytes = 0;  // to peers
  // Of weights of both maps, activations and one sequence's state; of both maps' pages for it,
  // unless they are the same.
  int64_t peak_bytes = 0;
  double seconds = 0;  // until it is prepared

  int64_t load_bytes() const { return peer_bytes + disk_bytes; }
};

struct ReshardPlan {
  std::vector<RankMove> ranks;  // by new rank, then old ranks that leave
  double seconds = 0;           // of the slowest
};

// `from` null: nothing is held yet. REQUIRES: valid maps, match.old_of_new of to.layout.world().
absl::StatusOr<ReshardPlan> PlanReshard(const ModelDescription& model, const ShardMap* from,
                                        const ShardMap& to, const RankMatch& match,
                                        const Sizing& sizing, const ReshardRates& rates);

// SHA-256 over the parts, with their sizes: what a rank that has
// prepared answers, from what lies in its memory, and what the coordinator expects, from the map.
std::string PartsDigest(const ModelDescription& model, absl::Span<const WeightPart> parts);

}  // namespace troupe

#endif  // TROUPE_SHARDING_RESHARD_PLAN_H_
