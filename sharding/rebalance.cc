#include "sharding/rebalance.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_util.h"

namespace troupe {
namespace {

ShardMap Moved(const ShardMap& map, const std::vector<LayerMove>& moves, size_t count) {
  ShardMap moved = map;
  for (size_t i = 0; i < count; ++i) moved.experts[moves[i].layer] = moves[i].placement;
  return moved;
}

}  // namespace

absl::StatusOr<Rebalance> RebalanceExperts(const ModelDescription& model, const ShardMap& from,
                                           const ShardMap& to, const ExpertLoads& loads,
                                           const RankMatch& match, const Sizing& sizing,
                                           const ReshardRates& rates) {
  if (!to.layout.expert_parallel) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layout ", NameOf(to.layout), ": experts are split, wanted ep, which places them whole"));
  }
  const int ranks = to.layout.tp * to.layout.dp;
  std::vector<LayerMove> moves;
  absl::Status full;
  // All copies that were asked for, or as many as leave room for a sequence: a copy a rank fewer
  // each time.
  for (int redundant = to.layout.redundant_experts; redundant >= 0; redundant -= ranks) {
    TROUPE_ASSIGN_OR_RETURN(
        moves, PlanPlacement(loads, to.experts, ranks, {.redundant_experts = redundant}));
    full = CheckFits(model, Moved(to, moves, moves.size()), sizing);
    if (full.ok()) break;
  }
  TROUPE_RETURN_IF_ERROR(full);
  if (moves.empty()) {
    const StageBalance balance = BalanceOf(loads, to.experts, ranks);
    return absl::InvalidArgumentError(
        absl::StrCat("nothing would be gained: the busiest rank of layer ", balance.worst_layer,
                     ", the worst, computes ", balance.worst, " times the mean"));
  }
  // The more layers, the more memory both maps take.
  size_t fit = 0;
  size_t beyond = moves.size() + 1;
  absl::Status refused;
  while (beyond - fit > 1) {
    const size_t count = fit == 0 && beyond > moves.size() ? moves.size() : (fit + beyond) / 2;
    const absl::Status status =
        PlanReshard(model, &from, Moved(to, moves, count), match, sizing, rates).status();
    if (status.ok()) {
      fit = count;
    } else {
      beyond = count;
      refused = status;
    }
  }
  if (fit == 0) return refused;
  return Rebalance{.map = Moved(to, moves, fit),
                   .layers_moved = static_cast<int>(fit),
                   .layers_left = static_cast<int>(moves.size() - fit)};
}

}  // namespace troupe
