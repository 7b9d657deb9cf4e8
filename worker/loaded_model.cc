#include "worker/loaded_model.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "worker/weight_loader.h"

namespace troupe {
namespace {

LoadedSwiglu LoadSwiglu(const SwigluWeights& weights, WeightLoader& loader) {
  LoadedSwiglu ffn;
  ffn.gate_up = loader.Matrix({weights.gate_proj, weights.up_proj});
  ffn.down = loader.Matrix({weights.down_proj});
  ffn.gate_up_bias = loader.Bias({weights.gate_proj, weights.up_proj});
  ffn.down_bias = loader.Bias({weights.down_proj});
  return ffn;
}

// `index` is among the model's MoE layers.
LoadedMoe LoadMoe(int index, const MoeWeights& weights, WeightLoader& loader) {
  LoadedMoe moe;
  moe.index = index;
  moe.router = loader.ExactMatrix({weights.router});
  moe.router_bias = loader.Bias({weights.router});
  moe.correction_bias = loader.Floats(weights.correction_bias);
  for (const SwigluWeights& expert : weights.experts) {
    moe.owned.push_back(LoadSwiglu(expert, loader));
    moe.experts.push_back(moe.owned.back().view());
  }
  moe.list = loader.ListExperts(moe.experts);
  if (weights.shared.has_value()) {
    moe.owned.push_back(LoadSwiglu(*weights.shared, loader));
    moe.shared = moe.owned.back().view();
  }
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
  const auto keep = [&](std::unique_ptr<PackedMatrix> matrix) {
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
                              const AttentionWeights& weights, WeightLoader& loader) {
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

LoadedNorms LoadNorms(const SublayerNorms& weights, WeightLoader& loader) {
  return {loader.Norm(weights.before), loader.Norm(weights.after)};
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

// `moe_layers` counts the MoE layers before this one, and itself.
LoadedLayer LoadLayer(absl::string_view name, const LayerDescription& description,
                      const LayerWeights& weights, int& moe_layers, WeightLoader& loader) {
  loader.Fail(CheckAttention(name, description.attention));
  LoadedLayer layer;
  layer.description = description;
  layer.attention_norms = LoadNorms(weights.attention_norms, loader);
  layer.ffn_norms = LoadNorms(weights.ffn_norms, loader);
  layer.attention = LoadAttention(description.attention, weights.attention, loader);
  if (const auto* moe = std::get_if<MoeWeights>(&weights.ffn)) {
    layer.ffn = LoadMoe(moe_layers++, *moe, loader);
  } else {
    layer.ffn = LoadSwiglu(std::get<SwigluWeights>(weights.ffn), loader);
  }
  return layer;
}

}  // namespace

int LoadedModel::moe_layers() const {
  return static_cast<int>(std::count_if(layers.begin(), layers.end(), [](const LoadedLayer& layer) {
    return std::holds_alternative<LoadedMoe>(layer.ffn);
  }));
}

int LoadedModel::max_experts() const {
  int experts = 0;
  const auto count = [&](const LoadedLayer& layer) {
    if (const auto* moe = std::get_if<LoadedMoe>(&layer.ffn)) {
      experts = std::max(experts, static_cast<int>(moe->experts.size()));
    }
  };
  for (const LoadedLayer& layer : layers) count(layer);
  if (mtp.has_value()) count(mtp->layer);
  return experts;
}

int LoadedModel::gated_heads() const {
  int heads = 0;
  for (const LoadedLayer& layer : layers) {
    if (layer.attention.head_gate_up != nullptr) heads += layer.description.attention.heads;
  }
  return heads;
}

absl::StatusOr<LoadedModel> LoadModel(const Checkpoint& checkpoint, Ops* ops,
                                      const LoadOptions& options) {
  int64_t bytes_total = 0;
  for (const auto& [name, view] : checkpoint.files().tensors()) {
    bytes_total += static_cast<int64_t>(view.bytes.size());
  }
  WeightLoader::Progress progress;
  if (options.progress) {
    progress = [&](int64_t bytes_done) { options.progress(bytes_done, bytes_total); };
  }
  const ModelDescription& description = checkpoint.description();
  const ModelWeights& weights = checkpoint.weights();
  WeightLoader loader(ops, options, description.norm_weight_offset, std::move(progress));
  LoadedModel model;
  model.description = description;
  model.mode = options.mode;
  model.embedding = loader.Table(weights.embedding);
  model.lm_head = loader.HeadMatrix(weights.lm_head);
  model.final_norm = loader.Norm(weights.final_norm);
  int moe_layers = 0;
  for (size_t i = 0; i < description.layers.size(); ++i) {
    model.layers.push_back(LoadLayer(absl::StrCat("layer ", i), description.layers[i],
                                     weights.layers[i], moe_layers, loader));
  }
  for (const TensorView& norm : weights.early_exit_norms) {
    model.early_exit_norms.push_back(loader.Norm(norm));
  }
  if (options.with_mtp && description.mtp.has_value()) {
    const MtpWeights& mtp = *weights.mtp;
    model.mtp.emplace();
    model.mtp->embedding_norm = loader.Norm(mtp.embedding_norm);
    model.mtp->hidden_norm = loader.Norm(mtp.hidden_norm);
    model.mtp->input = loader.Matrix({mtp.input_proj});
    model.mtp->head_norm = loader.Norm(mtp.head_norm);
    model.mtp->layer =
        LoadLayer("the MTP layer", description.mtp->layer, mtp.layer, moe_layers, loader);
  }
  model.weight_bytes = loader.device_bytes();
  if (!loader.status().ok()) return loader.status();
  return model;
}

}  // namespace troupe
