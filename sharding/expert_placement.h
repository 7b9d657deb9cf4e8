// Moves experts between the ranks of a stage, after how many tokens each expert received.
//
// An expert that receives more than its share gets copies, and tokens spread over them (HolderFor);
// copies lie on ranks so that all compute about as much. A change is cut into moves of one layer
// each, so that it can be prepared beside the running model with room for one layer's new experts,
// and committed at a step boundary.
//
// Thread model: plain values and pure functions; the same arguments give the same placement on
// every machine. Ownership: values. Invariants: every expert is held somewhere, none twice on a
// rank, and ranks hold the same number of copies, or one fewer.
#ifndef TROUPE_SHARDING_EXPERT_PLACEMENT_H_
#define TROUPE_SHARDING_EXPERT_PLACEMENT_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "sharding/shard_map.h"

namespace troupe {

// Tokens that experts received, older ones counting less. [layers][experts]; no experts in dense
// layers.
class ExpertLoads {
 public:
  // experts[l] is how many layer l has. A token counts half after `half_life_steps` steps.
  ExpertLoads(std::vector<int> experts, double half_life_steps);

  // One step's StepResult.expert_tokens: layer-major, MoE layers only. InvalidArgument, and nothing
  // is added, when the number of values is not the number of experts of all layers.
  absl::Status Add(absl::Span<const uint32_t> expert_tokens);

  absl::Span<const double> layer(int layer) const { return tokens_[layer]; }
  int layers() const { return static_cast<int>(tokens_.size()); }

 private:
  double decay_;
  std::vector<std::vector<double>> tokens_;
};

// Places one layer's experts on `ranks` ranks of a stage, `redundant` copies beyond one each, fewer
// where all ranks hold all experts: PlaceExperts, and then exchanges with the busiest rank until
// none helps. REQUIRES: ranks >= 1, loads not empty and not negative, redundant >= 0.
ExpertPlacement BalanceExperts(absl::Span<const double> loads, int ranks, int redundant);

// Tokens that each rank computes when every expert's are spread evenly over its holders. [ranks]
std::vector<double> RankLoads(absl::Span<const double> loads, const ExpertPlacement& placement,
                              int ranks);

// Largest over mean of RankLoads: 1 is perfect, `ranks` the worst. 1 where there is no load.
double PlacementBalance(absl::Span<const double> loads, const ExpertPlacement& placement,
                        int ranks);

// `placement` with its ranks renamed so that most experts stay where `current` has them. Ranks are
// alike, so the balance is the same and fewer experts move. Greedy, by common experts.
ExpertPlacement KeepInPlace(const ExpertPlacement& current, const ExpertPlacement& placement,
                            int ranks);

// One expert that a rank gets.
struct ExpertCopy {
  int expert = 0;
  int to_rank = 0;    // of the stage
  int from_rank = 0;  // a holder until now, the copies of one holder spread over its peers

  bool operator==(const ExpertCopy&) const = default;
};

// The change of one layer; committed alone.
struct LayerMove {
  int layer = 0;
  ExpertPlacement placement;
  std::vector<ExpertCopy> copies;  // by to_rank, then expert
  double balance_before = 1;
  double balance_after = 1;
};

struct PlacementPolicy {
  int redundant_experts = 0;  // a layer
  // A layer is left alone unless its balance (max over mean) falls by at least so much: moving
  // experts costs bandwidth, and loads will change again.
  double min_gain = 0.05;
};

// The moves from `current` to where loads want experts, those that gain most tokens of the slowest
// rank for each expert copied first. Layers of `current` without holders are skipped.
// InvalidArgument: loads and placements are of other numbers of layers or experts.
absl::StatusOr<std::vector<LayerMove>> PlanPlacement(const ExpertLoads& loads,
                                                     absl::Span<const ExpertPlacement> current,
                                                     int ranks, const PlacementPolicy& policy);

}  // namespace troupe

#endif  // TROUPE_SHARDING_EXPERT_PLACEMENT_H_
