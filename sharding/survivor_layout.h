// The layout that takes the place of another: experts that stay where they are, and what the ranks
// that are left can form when some are lost.
//
// Thread model: plain values and pure functions. Errors: as layout_plan.h.
#ifndef TROUPE_SHARDING_SURVIVOR_LAYOUT_H_
#define TROUPE_SHARDING_SURVIVOR_LAYOUT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "sharding/layout_plan.h"
#include "sharding/reshard_plan.h"
#include "sharding/shard_map.h"

namespace troupe {

// `to` with the experts of layers that both maps hold whole placed so that few of them move: each
// stays with those of its holders that are in the same stage still, one that nobody holds goes to a
// rank that holds fewest, and ranks with more than their share give up what others hold too, then
// what they must. Holders follow `match`.
ShardMap CarryExperts(const ShardMap& from, const ShardMap& to, const RankMatch& match);

struct SurvivorChoice {
  ShardMap map;                      // epoch 0
  std::vector<std::string> members;  // by rank
};

// What the machines that are there form: of the layouts that the model can be cut into and that
// fit, the one with the most ranks; among those one with the old tp and pp, whose weights and KV
// stay, before others. `members` are the old map's machines by rank, `alive` says which are left,
// `spares` are machines that hold nothing. ResourceExhausted, with the last arithmetic, when the
// model fits on no layout of what is left.
absl::StatusOr<SurvivorChoice> ChooseSurvivors(const ModelDescription& model, const ShardMap& from,
                                               absl::Span<const std::string> members,
                                               const std::vector<bool>& alive,
                                               absl::Span<const std::string> spares,
                                               const Sizing& sizing);

}  // namespace troupe

#endif  // TROUPE_SHARDING_SURVIVOR_LAYOUT_H_
