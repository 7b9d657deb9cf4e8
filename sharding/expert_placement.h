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
#include "model/description.h"
#include "sharding/shard_map.h"

namespace troupe {

// Tokens that experts received, older ones counting less. [layers][experts]; no experts in dense
// layers.
class ExpertLoads {
 public:
  // experts[l] is how many layer l has. A token counts half after `half_life` more reports.
  ExpertLoads(std::vector<int> experts, double half_life);

  // What StepResult.expert_tokens tells: layer-major, MoE layers only. InvalidArgument, and nothing
  // is added, when the number of values is not the number of experts of all layers.
  absl::Status Add(absl::Span<const uint32_t> expert_tokens);

  absl::Span<const double> layer(int layer) const { return tokens_[layer]; }
  int layers() const { return static_cast<int>(tokens_.size()); }
  // Nothing was added, or no token was counted.
  bool empty() const { return empty_; }

 private:
  double decay_;
  bool empty_ = true;
  std::vector<std::vector<double>> tokens_;
};

// Reports after which a token counts half: long against bursts of one kind of request, short
// against a day's changes.
inline constexpr double kLoadHalfLife = 16;

// Of a model's plain steps, which leave the MTP module out.
ExpertLoads LoadsOf(const ModelDescription& model);
// Where only a map is known: of its layers whose experts lie whole, as far as `values` numbers, a
// report's, tell of them. What they leave out is the MTP module's layer, the last.
ExpertLoads LoadsOf(absl::Span<const ExpertPlacement> placements, size_t values);

// Places one layer's experts on `ranks` ranks of a stage, by the tokens that chose each expert:
// `redundant` copies beyond one each, fewer where all ranks hold all experts, go where the load of
// a copy is largest; copies go, experts of most copies first, to the least loaded ranks that have
// room and do not hold the expert; then the busiest rank exchanges experts with others until none
// helps. Ties go to the lower index. REQUIRES: ranks >= 1, loads not empty and not negative,
// redundant >= 0.
ExpertPlacement PlaceExperts(absl::Span<const double> loads, int ranks, int redundant);

// Of the holders of `expert`, the one that computes it for a token at `position` of its sequence.
// It depends on nothing else, so that a token's sums do not depend on who shares the step.
int HolderFor(const ExpertPlacement& placement, int expert, int position);

// Tokens that each rank computes when every expert's are spread evenly over its holders. [ranks]
std::vector<double> RankLoads(absl::Span<const double> loads, const ExpertPlacement& placement,
                              int ranks);

// Largest over mean of RankLoads: 1 is perfect, `ranks` the worst. 1 where there is no load.
double PlacementBalance(absl::Span<const double> loads, const ExpertPlacement& placement,
                        int ranks);

// Balance of all layers whose experts ranks hold whole.
struct StageBalance {
  double mean = 1;
  double worst = 1;
  int worst_layer = -1;  // -1: no layer has a load
};
// Layers without holders, or without loads, are left out. REQUIRES: placements of the same layers.
StageBalance BalanceOf(const ExpertLoads& loads, absl::Span<const ExpertPlacement> placements,
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
// rank for each expert copied first. Layers without holders, or without loads, are skipped.
// InvalidArgument: loads and placements are of other numbers of layers or experts.
absl::StatusOr<std::vector<LayerMove>> PlanPlacement(const ExpertLoads& loads,
                                                     absl::Span<const ExpertPlacement> current,
                                                     int ranks, const PlacementPolicy& policy);

}  // namespace troupe

#endif  // TROUPE_SHARDING_EXPERT_PLACEMENT_H_
