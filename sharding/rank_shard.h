// What of a model one rank of a shard map runs: its layers, and its pieces of what is split.
//
//     split by columns of outputs   queries, keys, values, gate and up: whole heads, whole neurons
//     split by inputs               o and down: their partial products are summed over tp ranks
//     split by outputs              the head: each tp rank gives the logits of its part
//     whole on every rank           embedding, norms, routers, head gates, MLA's latents, NSA's
//                                   compression: small, or needed whole
//
// A rank's description is the model's own with its sizes divided, so that everything that reads a
// description (weights, pages, activations, kernels) works on a part as it does on the whole.
//
// Thread model: plain values and pure functions. Ownership: SliceWeights borrows as ModelWeights
// do.
#ifndef TROUPE_SHARDING_RANK_SHARD_H_
#define TROUPE_SHARDING_RANK_SHARD_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "model/checkpoint.h"
#include "model/description.h"
#include "sharding/shard_map.h"

namespace troupe {

// Piece `index` of `count` equal ones; the first pieces of an uneven size are the smaller ones.
struct Slice {
  int index = 0;
  int count = 1;

  int64_t Begin(int64_t size) const { return size * index / count; }
  int64_t End(int64_t size) const { return size * (index + 1) / count; }
  int64_t SizeOf(int64_t size) const { return End(size) - Begin(size); }
  bool operator==(const Slice&) const = default;
};

struct RankShard {
  Layout layout;
  RankPlace place;
  // Sizes of this rank's part: heads, kv_heads and inner sizes, for all of the model's layers.
  ModelDescription description;
  int first_layer = 0;  // computes [first_layer, end_layer)
  int end_layer = 0;
  bool first_stage = true;  // has the embedding
  bool last_stage = true;   // has the final norm, the head and the MTP module
  Slice tensor;             // of heads, dense FFNs, shared experts and the vocabulary
  Slice expert;             // of each expert's inner size: `tensor`, or whole where experts are
  int stage_rank = 0;       // as ExpertPlacement counts
  // [layers, then the MTP module's] the experts whose weights are here, ascending; empty for dense
  // layers and for those of other stages.
  std::vector<std::vector<int>> experts;
  std::vector<ExpertPlacement> placement;  // ShardMap::experts

  bool Holds(int layer) const {
    return layer == description.mtp_layer_index() ? last_stage
                                                  : first_layer <= layer && layer < end_layer;
  }
};

// All of the model on one rank.
RankShard WholeModel(const ModelDescription& model);

// `map` must be valid for the model.
RankShard ShardOf(const ModelDescription& model, const ShardMap& map, int rank);

// The first KV head of a rank's part, and how many tp ranks hold the same ones.
struct KvHeads {
  int first = 0;
  int count = 0;
  int copies = 1;
};
KvHeads KvHeadsOf(const AttentionDescription& whole, const Slice& tensor);

// Views of a rank's rows and columns; other stages' layers and other ranks' experts are empty.
// Biases of what is summed over ranks are with the first of them alone.
struct SlicedWeights {
  ModelWeights weights;
  std::shared_ptr<std::deque<int64_t>> lengths;  // of vectors that were cut, which views borrow
};

// `weights` are the model's.
SlicedWeights SliceWeights(const ModelDescription& model, const ModelWeights& weights,
                           const RankShard& shard);

// The groups of state that the rank's pages hold: those of the whole model in number and order, so
// that a plan's group numbers mean the same everywhere, with streams of its own layers and heads.
std::vector<StateGroup> ShardStateGroups(const RankShard& shard, const StateGroupOptions& options);

}  // namespace troupe

#endif  // TROUPE_SHARDING_RANK_SHARD_H_
