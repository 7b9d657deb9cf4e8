// Which rank of a replica holds what: layers, heads, experts.
//
// A replica of `world` ranks is laid out as pp pipeline stages, each of dp data-parallel groups of
// tp tensor-parallel ranks. Rank r is
//
//     r = (stage * dp + dp_index) * tp + tp_index
//
// so that the ranks of a tensor-parallel group, which talk most, are neighbours. A sequence has one
// home: a dp_index, whose tp ranks of every stage hold its KV. Experts of a stage's MoE layers are
// either split inside, over the tp ranks of each data-parallel group, or, with expert_parallel,
// held whole by some of the stage's tp * dp ranks, hot ones by several.
//
// Thread model: plain values and pure functions. Ownership: a ShardMap owns all it names.
// Invariants: every layer lies in exactly one stage, and every expert of a stage on at least one of
// its ranks (ValidateShardMap). Maps of two epochs are never mixed in one step.
#ifndef TROUPE_SHARDING_SHARD_MAP_H_
#define TROUPE_SHARDING_SHARD_MAP_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "model/description.h"

namespace troupe {

// How a replica is cut. world() ranks in all.
struct Layout {
  int tp = 1;                    // ranks that split attention heads and dense FFNs
  int dp = 1;                    // groups with sequences of their own
  int pp = 1;                    // stages of layers
  bool expert_parallel = false;  // experts whole, over tp * dp ranks; else split over tp
  int redundant_experts = 0;     // copies beyond one each, a layer, over all ranks of a stage

  int world() const { return tp * dp * pp; }
  bool operator==(const Layout&) const = default;
};

// "tp2 dp2 pp1 ep", as flags and messages write it.
std::string NameOf(const Layout& layout);

struct RankPlace {
  int stage = 0;
  int dp_index = 0;
  int tp_index = 0;

  bool operator==(const RankPlace&) const = default;
};

// Which ranks hold an expert whole, of one MoE layer: [experts] lists of ranks *inside the stage*
// (dp_index * tp + tp_index), ascending, none empty.
struct ExpertPlacement {
  std::vector<std::vector<int>> holders;

  bool operator==(const ExpertPlacement&) const = default;
};

struct ShardMap {
  uint64_t epoch = 0;
  Layout layout;
  // [pp + 1]: stage s computes layers [first_layer[s], first_layer[s + 1]). The embedding is on
  // stage 0; the final norm, the head and the MTP module are on the last.
  std::vector<int> first_layer;
  // [layers, then the MTP module's where there is one]; empty holders for dense layers, and for all
  // where experts are split instead.
  std::vector<ExpertPlacement> experts;

  RankPlace Place(int rank) const;
  int RankOf(const RankPlace& place) const;
  // The rank inside its stage, which ExpertPlacement counts in.
  int StageRank(int rank) const;

  bool operator==(const ShardMap&) const = default;
};

// InvalidArgument naming what is wrong: a map that does not fit the model or breaks the invariants.
absl::Status ValidateShardMap(const ModelDescription& model, const ShardMap& map);

}  // namespace troupe

#endif  // TROUPE_SHARDING_SHARD_MAP_H_
