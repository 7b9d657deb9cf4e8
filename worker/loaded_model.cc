#include "worker/loaded_model.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "sharding/layout_rules.h"
#include "sharding/weight_parts.h"
#include "worker/part_sharing.h"
#include "worker/weight_loader.h"

namespace troupe {
namespace {

const LoadedLayer& LayerIn(const LoadedModel& model, int index) {
  return model.layers[index - model.shard.first_layer];
}

const LoadedMoe& MoeIn(const LoadedModel& model, int index) {
  return std::get<LoadedMoe>(LayerIn(model, index).ffn);
}

LoadedSwiglu LoadSwiglu(const SwigluWeights& weights, WeightLoader& loader) {
  LoadedSwiglu ffn;
  ffn.gate_up = loader.Matrix({weights.gate_proj, weights.up_proj});
  ffn.down = loader.Matrix({weights.down_proj});
  ffn.gate_up_bias = loader.Bias({weights.gate_proj, weights.up_proj});
  ffn.down_bias = loader.Bias({weights.down_proj});
  return ffn;
}

LoadedNorms LoadNorms(const SublayerNorms& weights, WeightLoader& loader) {
  return {loader.Norm(weights.before), loader.Norm(weights.after)};
}

// Layers with experts before layer `layer`.
int MoeIndex(const ModelDescription& model, int layer) {
  return static_cast<int>(
      std::count_if(model.layers.begin(), model.layers.begin() + layer,
                    [](const auto& before) { return std::holds_alternative<MoeFfn>(before.ffn); }));
}

// See LoadedMoe::copies_begin.
void LoadCopies(const RankShard& shard, int layer, WeightLoader& loader, LoadedMoe& moe) {
  const std::vector<std::vector<int>>& holders = shard.placement[layer].holders;
  if (holders.empty()) return;
  std::vector<int32_t> begin = {0};
  std::vector<int32_t> local;
  int32_t next = 0;
  for (const std::vector<int>& ranks : holders) {
    for (const int rank : ranks) local.push_back(rank == shard.stage_rank ? next++ : -1);
    begin.push_back(static_cast<int32_t>(local.size()));
  }
  moe.copies_begin = loader.Integers(begin);
  moe.copies_local = loader.Integers(local);
}

LoadedSwiglu ExpertIn(const LoadedModel& model, int layer, int expert) {
  const std::vector<int>& held = model.shard.experts[layer];
  const auto at = std::lower_bound(held.begin(), held.end(), expert) - held.begin();
  return MoeIn(model, layer).owned[at];
}

LoadedMoe LoadMoe(const RankShard& shard, int layer, const LayerWeights& from, PartSharing& parts,
                  WeightLoader& loader, LoadedNorms& norms) {
  const auto& weights = std::get<MoeWeights>(from.ffn);
  LoadedMoe moe;
  moe.index = MoeIndex(shard.description, layer);
  parts.Take(
      {.role = WeightRole::kRouter, .layer = layer},
      [&](const LoadedModel& kept) {
        const LoadedMoe& same = MoeIn(kept, layer);
        norms = LayerIn(kept, layer).ffn_norms;
        moe.router = same.router;
        moe.router_bias = same.router_bias;
        moe.correction_bias = same.correction_bias;
      },
      [&] {
        norms = LoadNorms(from.ffn_norms, loader);
        moe.router = loader.ExactMatrix({weights.router});
        moe.router_bias = loader.Bias({weights.router});
        moe.correction_bias = loader.Floats(weights.correction_bias);
      });
  LoadCopies(shard, layer, loader, moe);
  for (const int expert : shard.experts[layer]) {
    LoadedSwiglu& own = moe.owned.emplace_back();
    parts.Take(
        {.role = WeightRole::kExpert, .layer = layer, .expert = expert, .slice = shard.expert},
        [&](const LoadedModel& kept) { own = ExpertIn(kept, layer, expert); },
        [&] { own = LoadSwiglu(weights.experts[expert], loader); });
    moe.experts.push_back(own.view());
  }
  if (weights.shared.has_value()) {
    LoadedSwiglu& own = moe.owned.emplace_back();
    parts.Take(
        {.role = WeightRole::kShared, .layer = layer, .slice = shard.tensor},
        [&](const LoadedModel& kept) { own = MoeIn(kept, layer).owned.back(); },
        [&] { own = LoadSwiglu(*weights.shared, loader); });
    moe.shared = own.view();
  }
  if (!loader.status().ok()) return moe;
  moe.list = loader.ListExperts(moe.experts);
  if (moe.shared.has_value()) moe.shared_list = loader.ListExperts({&*moe.shared, 1});
  return moe;
}

LoadedPhi LoadPhi(const CompressorWeights& weights, WeightLoader& loader) {
  return {loader.Floats(weights.position), loader.SmallMatrix(weights.w1),
          loader.SmallMatrix(weights.w2)};
}

LoadedNsa LoadNsa(const NsaDescription& description, const NsaWeights& weights,
                  WeightLoader& loader) {
  LoadedNsa nsa;
  nsa.sizes.compress_block = description.compress_block;
  nsa.sizes.compress_stride = description.compress_stride;
  nsa.sizes.selected_blocks = description.selected_blocks;
  nsa.sizes.initial_blocks = description.init_blocks;
  nsa.sizes.local_blocks = description.local_blocks;
  nsa.phi_k = LoadPhi(weights.phi_k, loader);
  nsa.phi_v = LoadPhi(weights.phi_v, loader);
  nsa.compressed_k_norm = loader.Norm(weights.compressed.k_norm);
  return nsa;
}

// All but what belongs to LoadedAttention::in.
LoadedMla LoadMla(const AttentionDescription& description, const AttentionWeights& weights,
                  WeightLoader& loader) {
  const MlaWeights& from = std::get<MlaWeights>(weights.kv);
  LoadedMla mla;
  mla.dims.heads = description.heads;
  mla.dims.nope_dim = description.mla->nope_dim;
  mla.dims.rope_dim = description.mla->rope_dim;
  mla.dims.value_dim = description.value_dim;
  mla.dims.latent_dim = description.mla->latent_dim;
  if (description.mla->query_latent_dim > 0) {
    mla.q_up = loader.Matrix({weights.q_proj});
    mla.q_latent_norm = loader.Norm(from.q_a_norm);
  }
  mla.latent_norm = loader.Norm(from.kv_a_norm);
  const auto keep = [&](SharedMatrix matrix) {
    mla.owned.push_back(std::move(matrix));
    return mla.owned.back().get();
  };
  for (int head = 0; head < mla.dims.heads; ++head) {
    const int64_t keys = int64_t{head} * (mla.dims.nope_dim + mla.dims.value_dim);
    const int64_t values = keys + mla.dims.nope_dim;
    MlaHeadWeights& to = mla.heads.emplace_back();
    to.key_up = keep(loader.Rows(from.kv_b_proj, keys, mla.dims.nope_dim));
    to.key_down = keep(loader.TransposedRows(from.kv_b_proj, keys, mla.dims.nope_dim));
    to.value_up = keep(loader.Rows(from.kv_b_proj, values, mla.dims.value_dim));
  }
  return mla;
}

DeviceTensor LoadInverseFrequency(const RopeDescription& rope, WeightLoader& loader) {
  return rope.kind == RopeKind::kNone ? DeviceTensor() : loader.Values(rope.inverse_frequency);
}

LoadedAttention LoadAttention(const AttentionDescription& description,
                              const AttentionWeights& weights, const Slice& tensor,
                              WeightLoader& loader) {
  LoadedAttention attention;
  const auto* mla = std::get_if<MlaWeights>(&weights.kv);
  const bool queries_by_latent = mla != nullptr && description.mla->query_latent_dim > 0;
  std::vector<LinearWeights> parts = {queries_by_latent ? mla->q_a_proj : weights.q_proj};
  int64_t column = parts[0].out_features;
  const auto append = [&](const LinearWeights& part) {
    parts.push_back(part);
    return std::exchange(column, column + part.out_features);
  };
  const auto append_kv = [&](const KvWeights& kv, KvBranch branch) {
    LoadedKv loaded;
    loaded.branch = branch;
    loaded.k_column = append(kv.k_proj);
    loaded.v_column = append(kv.v_proj);
    if (branch != KvBranch::kNsaRaw) loaded.k_norm = loader.Norm(kv.k_norm);
    attention.kv.push_back(std::move(loaded));
  };
  const auto* nsa = std::get_if<NsaWeights>(&weights.kv);
  if (mla != nullptr) {
    attention.mla = LoadMla(description, weights, loader);
    attention.mla->latent_column = append(mla->kv_a_proj);
    attention.kv.push_back({.branch = KvBranch::kMlaLatent});
  } else if (nsa == nullptr) {
    append_kv(std::get<KvWeights>(weights.kv), KvBranch::kSelf);
  } else {
    append_kv(nsa->compressed, KvBranch::kNsaRaw);
    append_kv(nsa->selected, KvBranch::kNsaSelected);
    append_kv(nsa->window, KvBranch::kNsaWindow);
    attention.nsa = LoadNsa(*description.nsa, *nsa, loader);
  }
  if (weights.head_gate.has_value()) {
    attention.head_gate_column = append(weights.head_gate->down_proj);
    attention.head_gate_up = loader.Matrix({weights.head_gate->up_proj});
    attention.first_gate = tensor.index * description.heads;
  }
  if (nsa != nullptr) attention.nsa->branch_gate_column = append(nsa->branch_gate);
  attention.in = loader.Matrix(parts);
  attention.in_bias = loader.Bias(parts);
  attention.out = loader.Matrix({weights.o_proj});
  attention.out_bias = loader.Bias({weights.o_proj});
  attention.q_norm = loader.Norm(weights.q_norm);
  attention.sinks = loader.Floats(weights.sinks);
  attention.inverse_frequency = LoadInverseFrequency(description.rope, loader);
  return attention;
}

// Unimplemented where the kernels lack a combination of features.
absl::Status CheckAttention(absl::string_view layer, const AttentionDescription& attention) {
  if (attention.kind == AttentionKind::kNsa &&
      (!attention.head_gate.has_value() || attention.rope.kind != RopeKind::kNone ||
       attention.qk_norm == QkNorm::kFullWidth)) {
    return absl::UnimplementedError(
        absl::StrCat(layer,
                     ": sparse attention runs with head gates, and without RoPE and norms "
                     "over all heads, only"));
  }
  if (attention.mla.has_value() &&
      (attention.head_gate.has_value() || attention.sinks || attention.qk_norm != QkNorm::kNone)) {
    return absl::UnimplementedError(absl::StrCat(
        layer, ": latent attention runs without head gates, sinks and norms of heads only"));
  }
  return absl::OkStatus();
}

LoadedLayer LoadLayer(const RankShard& shard, int index, const LayerWeights& weights,
                      PartSharing& parts, WeightLoader& loader) {
  const LayerDescription& description = LayerOf(shard.description, index);
  const bool mtp = index == shard.description.mtp_layer_index();
  loader.Fail(
      CheckAttention(mtp ? "the MTP layer" : absl::StrCat("layer ", index), description.attention));
  LoadedLayer layer;
  layer.index = index;
  layer.description = description;
  parts.Take(
      {.role = WeightRole::kAttention, .layer = index, .slice = shard.tensor},
      [&](const LoadedModel& kept) {
        layer.attention_norms = LayerIn(kept, index).attention_norms;
        layer.attention = LayerIn(kept, index).attention;
      },
      [&] {
        layer.attention_norms = LoadNorms(weights.attention_norms, loader);
        layer.attention =
            LoadAttention(description.attention, weights.attention, shard.tensor, loader);
      });
  if (std::holds_alternative<MoeWeights>(weights.ffn)) {
    layer.ffn = LoadMoe(shard, index, weights, parts, loader, layer.ffn_norms);
    return layer;
  }
  parts.Take(
      {.role = WeightRole::kDenseFfn, .layer = index, .slice = shard.tensor},
      [&](const LoadedModel& kept) {
        layer.ffn_norms = LayerIn(kept, index).ffn_norms;
        layer.ffn = std::get<LoadedSwiglu>(LayerIn(kept, index).ffn);
      },
      [&] {
        layer.ffn_norms = LoadNorms(weights.ffn_norms, loader);
        layer.ffn = LoadSwiglu(std::get<SwigluWeights>(weights.ffn), loader);
      });
  return layer;
}

}  // namespace

int LoadedModel::moe_layers() const { return MoeIndex(description, description.mtp_layer_index()); }

int LoadedModel::max_experts() const {
  int experts = 0;
  const auto count = [&](const LayerDescription& layer) {
    if (const auto* moe = std::get_if<MoeFfn>(&layer.ffn)) {
      experts = std::max(experts, moe->experts);
    }
  };
  for (const LayerDescription& layer : description.layers) count(layer);
  if (mtp.has_value()) count(mtp->layer.description);
  return experts;
}

int LoadedModel::gated_heads() const {
  int heads = 0;
  for (const LoadedLayer& layer : layers) {
    const PackedMatrix* gates = layer.attention.head_gate_up.get();
    if (gates != nullptr) heads += static_cast<int>(gates->outputs());
  }
  return heads;
}

namespace {

// Stored bytes of what a rank loads, about: its share of the model's numbers.
int64_t BytesToLoad(const Checkpoint& checkpoint, const RankShard& shard, const LoadedModel* keep) {
  int64_t bytes = 0;
  for (const auto& [name, view] : checkpoint.files().tensors()) {
    bytes += static_cast<int64_t>(view.bytes.size());
  }
  const ModelDescription& model = checkpoint.description();
  const auto numbers = [&](std::vector<WeightPart> parts) {
    return static_cast<double>(BytesOf(model, parts, WeightBits()));
  };
  std::vector<WeightPart> parts = PartsOf(shard, /*with_mtp=*/true);
  if (keep != nullptr) {
    std::erase_if(parts, [&](const WeightPart& part) { return keep->parts.contains(part); });
  }
  const double whole = numbers(PartsOf(WholeModel(model), /*with_mtp=*/true));
  return static_cast<int64_t>(numbers(std::move(parts)) / whole * static_cast<double>(bytes));
}

LoadedMtp LoadMtp(const RankShard& shard, const MtpWeights& weights, WeightLoader& loader) {
  LoadedMtp mtp;
  mtp.embedding_norm = loader.Norm(weights.embedding_norm);
  mtp.hidden_norm = loader.Norm(weights.hidden_norm);
  mtp.input = loader.Matrix({weights.input_proj});
  mtp.head_norm = loader.Norm(weights.head_norm);
  LoadedModel unrecorded;
  PartSharing parts({}, loader, unrecorded);
  mtp.layer = LoadLayer(shard, shard.description.mtp_layer_index(), weights.layer, parts, loader);
  return mtp;
}

// Embedding, head and the norms before it.
void LoadEnds(const ModelWeights& weights, bool embedding, PartSharing& parts, WeightLoader& loader,
              LoadedModel& model) {
  if (embedding) {
    parts.Take(
        {.role = WeightRole::kEmbedding},
        [&](const LoadedModel& kept) { model.embedding = kept.embedding; },
        [&] { model.embedding = loader.Table(weights.embedding); });
  }
  if (!model.shard.last_stage) return;
  parts.Take(
      {.role = WeightRole::kHead, .slice = model.shard.tensor},
      [&](const LoadedModel& kept) { model.lm_head = kept.lm_head; },
      [&] { model.lm_head = loader.HeadMatrix(weights.lm_head); });
  parts.Take(
      {.role = WeightRole::kFinalNorms},
      [&](const LoadedModel& kept) {
        model.final_norm = kept.final_norm;
        model.early_exit_norms = kept.early_exit_norms;
      },
      [&] {
        model.final_norm = loader.Norm(weights.final_norm);
        for (const TensorView& norm : weights.early_exit_norms) {
          model.early_exit_norms.push_back(loader.Norm(norm));
        }
      });
}

}  // namespace

absl::StatusOr<LoadedModel> LoadModel(const Checkpoint& checkpoint, Ops* ops,
                                      const LoadOptions& options) {
  LoadedModel model;
  model.shard = options.shard == nullptr ? WholeModel(checkpoint.description()) : *options.shard;
  const RankShard& shard = model.shard;
  WeightLoader::Progress progress;
  if (options.progress) {
    progress = [&, total = BytesToLoad(checkpoint, shard, options.keep)](int64_t bytes_done) {
      options.progress(bytes_done, total);
    };
  }
  const SlicedWeights sliced = SliceWeights(checkpoint.description(), checkpoint.weights(), shard);
  const ModelWeights& weights = sliced.weights;
  const ModelDescription& description = shard.description;
  WeightLoader loader(ops, options, description.norm_weight_offset, std::move(progress));
  const bool mtp = options.with_mtp && weights.mtp.has_value();
  model.description = description;
  model.mode = options.mode;
  PartSharing parts(options, loader, model);
  LoadEnds(weights, shard.first_stage || mtp, parts, loader, model);
  for (int i = shard.first_layer; i < shard.end_layer; ++i) {
    model.layers.push_back(LoadLayer(shard, i, weights.layers[i], parts, loader));
  }
  if (mtp) model.mtp = LoadMtp(shard, *weights.mtp, loader);
  model.weight_bytes = loader.device_bytes() + model.kept_bytes;
  if (!loader.status().ok()) return loader.status();
  return model;
}

}  // namespace troupe
