// What each rank of a map holds in bytes, and the layout that suits a model and its machines.
//
// Thread model: plain values and pure functions. Errors: InvalidArgument for what cannot be,
// ResourceExhausted for what does not fit, with the arithmetic.
#ifndef TROUPE_SHARDING_LAYOUT_PLAN_H_
#define TROUPE_SHARDING_LAYOUT_PLAN_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/description.h"
#include "sharding/shard_map.h"
#include "sharding/weight_parts.h"

namespace troupe {

// What a replica shall serve, and in which form it lies in memory.
struct Sizing {
  WeightBits bits;
  int kv_bytes_per_element = 2;
  bool with_mtp = false;
  int step_tokens = 512;     // of one step of one data-parallel group
  int logit_tokens = 64;     // of those, with logits
  int context_tokens = 0;    // of the longest sequence; 0: what the model was made for
  int64_t memory_bytes = 0;  // of each rank; 0: not known, everything fits
};

struct RankBytes {
  int64_t weights = 0;
  int64_t activations = 0;
  int64_t kv_per_token = 0;  // of a group that keeps all tokens; windows are left out
  int64_t kv_longest = 0;    // of one sequence of context_tokens

  // What one sequence of the longest context needs in all.
  int64_t needed() const { return weights + activations + kv_longest; }
};

// Activations of a forward pass, as worker/runner_arena.h lays them out but for rounding up.
int64_t ActivationBytes(const RankShard& shard, const Sizing& sizing);

RankBytes BytesOfRank(const ModelDescription& model, const ShardMap& map, int rank,
                      const Sizing& sizing);

// ResourceExhausted, naming the fullest rank with weights, activations and KV, when it does not
// hold one sequence of the longest context.
absl::Status CheckFits(const ModelDescription& model, const ShardMap& map, const Sizing& sizing);

// What is asked of a layout; empty: free.
struct LayoutWish {
  int ranks = 1;
  std::optional<int> tp;
  std::optional<int> dp;
  std::optional<int> pp;
  std::optional<bool> expert_parallel;
  int redundant_experts = 0;
};

// Rates of a rank and of the links between ranks, for comparing layouts. The defaults are those of
// one H200 with NVLink in round numbers; what they decide are ratios.
struct MachineRates {
  double memory_bytes_per_s = 4e12;
  double link_bytes_per_s = 3e11;
  double collective_s = 15e-6;  // what a collective costs, however small
};

// How a decode step of `sequences` sequences is spent on the slowest rank.
struct StepCost {
  double read_s = 0;      // weights and KV from memory
  double exchange_s = 0;  // collectives and what they carry
  double total_s() const { return read_s + exchange_s; }
};
StepCost DecodeCost(const ModelDescription& model, const ShardMap& map, const Sizing& sizing,
                    const MachineRates& rates, int64_t sequences, int64_t context_tokens);

// One layout that was looked at.
struct LayoutCandidate {
  Layout layout;
  absl::Status status;      // why it cannot be; OK: it can
  RankBytes fullest;        // of the rank that needs most
  int64_t longest_fit = 0;  // sequences of the longest context, over all groups; with memory only
  StepCost cost;            // at kPlannedSequences
};

struct LayoutChoice {
  ShardMap map;                             // epoch 0
  std::vector<LayoutCandidate> candidates;  // the chosen one first, then by cost, then impossible
};

// Sequences, and tokens of each, that candidates are compared at: a busy replica.
inline constexpr int64_t kPlannedSequences = 64;
inline constexpr int64_t kPlannedContext = 4096;
inline constexpr int kMostPlannedRanks = 64;  // every one of them is looked at, in every layout

// The cheapest decode step among the layouts of `ranks` ranks that the wish allows and that fit.
// ResourceExhausted, or InvalidArgument where none can be cut so, with the arithmetic of one.
absl::StatusOr<LayoutChoice> ChooseLayout(const ModelDescription& model, const LayoutWish& wish,
                                          const Sizing& sizing, const MachineRates& rates);

}  // namespace troupe

#endif  // TROUPE_SHARDING_LAYOUT_PLAN_H_
