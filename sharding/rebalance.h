// The shard map that observed loads ask for, from the one that serves.
//
// Copies are made of as many experts as were asked for and fit. A change holds both maps' experts
// while it is prepared, so that not all layers may move at once: those that gain most go first, as
// many as fit, and the others with the next change.
//
// Thread model: plain values and pure functions. Errors: InvalidArgument where nothing would be
// gained, ResourceExhausted, with the arithmetic, where not even one layer can move.
#ifndef TROUPE_SHARDING_REBALANCE_H_
#define TROUPE_SHARDING_REBALANCE_H_

#include "absl/status/statusor.h"
#include "sharding/expert_placement.h"
#include "sharding/layout_plan.h"
#include "sharding/reshard_plan.h"
#include "sharding/shard_map.h"

namespace troupe {

struct Rebalance {
  ShardMap map;
  int layers_moved = 0;
  int layers_left = 0;  // that would gain too
};

// `to` with experts placed after `loads`: `to` is the map of the wanted layout, with as few experts
// moved as can be (CarryExperts), and its layout says how many copies may be made. `from` is the
// map that serves, `match` as for PlanReshard.
absl::StatusOr<Rebalance> RebalanceExperts(const ModelDescription& model, const ShardMap& from,
                                           const ShardMap& to, const ExpertLoads& loads,
                                           const RankMatch& match, const Sizing& sizing,
                                           const ReshardRates& rates);

}  // namespace troupe

#endif  // TROUPE_SHARDING_REBALANCE_H_
