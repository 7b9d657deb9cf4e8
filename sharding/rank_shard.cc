#include "sharding/rank_shard.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "sharding/layout_rules.h"

namespace troupe {
namespace {

AttentionDescription PartOf(const AttentionDescription& whole, const Slice& tensor) {
  AttentionDescription part = whole;
  part.heads = static_cast<int>(tensor.SizeOf(whole.heads));
  part.kv_heads = whole.mla.has_value() ? part.heads : KvHeadsOf(whole, tensor).count;
  return part;
}

LayerDescription PartOf(const LayerDescription& whole, const RankShard& shard) {
  LayerDescription part = whole;
  part.attention = PartOf(whole.attention, shard.tensor);
  if (auto* dense = std::get_if<DenseFfn>(&part.ffn)) {
    dense->inner_size = static_cast<int>(shard.tensor.SizeOf(dense->inner_size));
    return part;
  }
  auto& moe = std::get<MoeFfn>(part.ffn);
  moe.expert_inner_size = static_cast<int>(shard.expert.SizeOf(moe.expert_inner_size));
  moe.shared_inner_size = static_cast<int>(shard.tensor.SizeOf(moe.shared_inner_size));
  return part;
}

void CutDescription(const ModelDescription& model, RankShard& shard) {
  shard.description = model;
  for (LayerDescription& layer : shard.description.layers) layer = PartOf(layer, shard);
  if (model.mtp.has_value()) shard.description.mtp->layer = PartOf(model.mtp->layer, shard);
}

LinearWeights OutputsOf(const LinearWeights& whole, int64_t first, int64_t count) {
  LinearWeights part = whole;
  part.weight = whole.weight.RowsFrom(first, count);
  if (!whole.bias.empty()) part.bias = whole.bias.ColumnsFrom(first, count);
  part.out_features = static_cast<int>(count);
  return part;
}

// The product of a part of the inputs is a term of a sum over ranks, so one of them adds the bias.
LinearWeights InputsOf(const LinearWeights& whole, const Slice& slice) {
  LinearWeights part = whole;
  const int64_t first = slice.Begin(whole.in_features);
  const int64_t count = slice.SizeOf(whole.in_features);
  part.weight = whole.weight.ColumnsFrom(first, count);
  if (slice.index > 0) part.bias = MatrixView();
  part.in_features = static_cast<int>(count);
  return part;
}

SwigluWeights CutSwiglu(const SwigluWeights& whole, const Slice& slice) {
  const int64_t inner = whole.gate_proj.out_features;
  return {OutputsOf(whole.gate_proj, slice.Begin(inner), slice.SizeOf(inner)),
          OutputsOf(whole.up_proj, slice.Begin(inner), slice.SizeOf(inner)),
          InputsOf(whole.down_proj, slice)};
}

// Cuts the weights of one model for one rank; shapes of cut vectors go to `lengths`.
class Cutter {
 public:
  Cutter(const RankShard& shard, std::deque<int64_t>& lengths) : shard_(shard), lengths_(lengths) {}

  LayerWeights Layer(int index, const LayerDescription& whole, const LayerWeights& weights) {
    LayerWeights part = weights;
    part.attention = Attention(whole.attention, weights.attention);
    if (const auto* dense = std::get_if<SwigluWeights>(&weights.ffn)) {
      part.ffn = CutSwiglu(*dense, shard_.tensor);
    } else {
      part.ffn = Moe(index, std::get<MoeWeights>(weights.ffn));
    }
    return part;
  }

 private:
  // Elements [first, first + count) of a vector.
  TensorView Elements(const TensorView& whole, int64_t first, int64_t count) {
    if (whole.empty()) return whole;
    TensorView part = whole;
    const int64_t bytes = BitsPerElement(whole.dtype) / 8;
    part.bytes =
        whole.bytes.subspan(static_cast<size_t>(first * bytes), static_cast<size_t>(count * bytes));
    part.shape = std::span<const int64_t>(&lengths_.emplace_back(count), 1);
    return part;
  }

  // A norm of heads [first, first + count): of each by itself, or of all at once.
  TensorView HeadNorm(const TensorView& whole, const AttentionDescription& attention, int first,
                      int count) {
    if (attention.qk_norm != QkNorm::kFullWidth) return whole;
    return Elements(whole, int64_t{first} * attention.head_dim,
                    int64_t{count} * attention.head_dim);
  }

  KvWeights Kv(const AttentionDescription& whole, const KvWeights& weights) {
    const KvHeads heads = KvHeadsOf(whole, shard_.tensor);
    const auto outputs = [&](const LinearWeights& linear, int64_t dim) {
      return OutputsOf(linear, heads.first * dim, heads.count * dim);
    };
    return {outputs(weights.k_proj, whole.head_dim), outputs(weights.v_proj, whole.value_dim),
            HeadNorm(weights.k_norm, whole, heads.first, heads.count)};
  }

  NsaWeights Nsa(const AttentionDescription& whole, const NsaWeights& weights) {
    NsaWeights part = weights;
    part.compressed = Kv(whole, weights.compressed);
    part.selected = Kv(whole, weights.selected);
    part.window = Kv(whole, weights.window);
    return part;
  }

  MlaWeights Mla(const AttentionDescription& whole, const MlaWeights& weights) {
    MlaWeights part = weights;
    const int64_t dim = whole.mla->nope_dim + whole.value_dim;
    part.kv_b_proj = OutputsOf(weights.kv_b_proj, shard_.tensor.Begin(whole.heads) * dim,
                               shard_.tensor.SizeOf(whole.heads) * dim);
    return part;
  }

  AttentionWeights Attention(const AttentionDescription& whole, const AttentionWeights& weights) {
    AttentionWeights part = weights;
    const auto first = static_cast<int>(shard_.tensor.Begin(whole.heads));
    const auto count = static_cast<int>(shard_.tensor.SizeOf(whole.heads));
    part.q_proj =
        OutputsOf(weights.q_proj, int64_t{first} * whole.head_dim, int64_t{count} * whole.head_dim);
    part.o_proj = InputsOf(weights.o_proj, shard_.tensor);
    part.q_norm = HeadNorm(weights.q_norm, whole, first, count);
    part.sinks = Elements(weights.sinks, first, count);
    if (const auto* kv = std::get_if<KvWeights>(&weights.kv)) part.kv = Kv(whole, *kv);
    if (const auto* nsa = std::get_if<NsaWeights>(&weights.kv)) part.kv = Nsa(whole, *nsa);
    if (const auto* mla = std::get_if<MlaWeights>(&weights.kv)) part.kv = Mla(whole, *mla);
    return part;
  }

  MoeWeights Moe(int index, const MoeWeights& weights) {
    MoeWeights part = weights;
    part.experts.assign(weights.experts.size(), SwigluWeights());
    for (const int expert : shard_.experts[index]) {
      part.experts[expert] = CutSwiglu(weights.experts[expert], shard_.expert);
    }
    if (weights.shared.has_value()) part.shared = CutSwiglu(*weights.shared, shard_.tensor);
    return part;
  }

  const RankShard& shard_;
  std::deque<int64_t>& lengths_;
};

std::vector<int> HeldExperts(const ModelDescription& model, const ShardMap& map, int layer,
                             int stage_rank) {
  std::vector<int> held;
  const auto* moe = std::get_if<MoeFfn>(&LayerOf(model, layer).ffn);
  if (moe == nullptr) return held;
  for (int expert = 0; expert < moe->experts; ++expert) {
    const bool whole = map.layout.expert_parallel;
    const auto holds = [&](const std::vector<int>& holders) {
      return std::binary_search(holders.begin(), holders.end(), stage_rank);
    };
    if (!whole || holds(map.experts[layer].holders[expert])) held.push_back(expert);
  }
  return held;
}

}  // namespace

KvHeads KvHeadsOf(const AttentionDescription& whole, const Slice& tensor) {
  if (whole.kv_heads % tensor.count == 0) {
    return {static_cast<int>(tensor.Begin(whole.kv_heads)),
            static_cast<int>(tensor.SizeOf(whole.kv_heads)), 1};
  }
  CHECK_EQ(tensor.count % whole.kv_heads, 0) << whole.kv_heads << " KV heads";
  const int copies = tensor.count / whole.kv_heads;
  return {tensor.index / copies, 1, copies};
}

RankShard WholeModel(const ModelDescription& model) {
  ShardMap map;
  map.first_layer = {0, static_cast<int>(model.layers.size())};
  map.experts.resize(model.layers.size() + (model.mtp.has_value() ? 1 : 0));
  return ShardOf(model, map, 0);
}

RankShard ShardOf(const ModelDescription& model, const ShardMap& map, int rank) {
  RankShard shard;
  shard.layout = map.layout;
  shard.place = map.Place(rank);
  shard.first_layer = map.first_layer[shard.place.stage];
  shard.end_layer = map.first_layer[shard.place.stage + 1];
  shard.first_stage = shard.place.stage == 0;
  shard.last_stage = shard.place.stage == map.layout.pp - 1;
  shard.tensor = {shard.place.tp_index, map.layout.tp};
  shard.expert = map.layout.expert_parallel ? Slice() : shard.tensor;
  CutDescription(model, shard);
  const int layers = model.mtp_layer_index() + (model.mtp.has_value() ? 1 : 0);
  shard.stage_rank = map.StageRank(rank);
  shard.placement = map.experts;
  shard.experts.resize(layers);
  for (int layer = 0; layer < layers; ++layer) {
    if (!shard.Holds(layer)) continue;
    shard.experts[layer] = HeldExperts(model, map, layer, shard.stage_rank);
  }
  return shard;
}

SlicedWeights SliceWeights(const ModelDescription& model, const ModelWeights& weights,
                           const RankShard& shard) {
  SlicedWeights sliced{{}, std::make_shared<std::deque<int64_t>>()};
  ModelWeights& part = sliced.weights;
  Cutter cutter(shard, *sliced.lengths);
  part.layers.resize(weights.layers.size());
  for (int i = shard.first_layer; i < shard.end_layer; ++i) {
    part.layers[i] = cutter.Layer(i, model.layers[i], weights.layers[i]);
  }
  // The MTP module reads embeddings too.
  const bool mtp = shard.last_stage && weights.mtp.has_value();
  if (shard.first_stage || mtp) part.embedding = weights.embedding;
  if (!shard.last_stage) return sliced;
  part.lm_head = OutputsOf(weights.lm_head, shard.tensor.Begin(model.vocab_size),
                           shard.tensor.SizeOf(model.vocab_size));
  part.final_norm = weights.final_norm;
  part.early_exit_norms = weights.early_exit_norms;
  if (mtp) {
    part.mtp = weights.mtp;
    part.mtp->layer = cutter.Layer(model.mtp_layer_index(), model.mtp->layer, weights.mtp->layer);
  }
  return sliced;
}

std::vector<StateGroup> ShardStateGroups(const RankShard& shard, const StateGroupOptions& options) {
  StateGroupOptions own = options;
  own.first_layer = shard.first_layer;
  own.end_layer = shard.last_stage ? shard.description.mtp_layer_index() + 1 : shard.end_layer;
  return StateGroups(shard.description, own);
}

}  // namespace troupe
