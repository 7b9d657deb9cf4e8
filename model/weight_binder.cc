#include "model/weight_binder.h"

#include <algorithm>
#include <initializer_list>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace troupe {
namespace {

constexpr size_t kMaxProblemsShown = 8;

class WeightBinder {
 public:
  WeightBinder(const SafetensorsCheckpoint& files, const ModelDescription& description,
               const TensorNames& names, const Quantization& quantization)
      : files_(files), model_(description), names_(names), quantization_(quantization) {}

  ModelWeights Bind() {
    ModelWeights weights;
    weights.embedding = Take(names_.embedding, {model_.vocab_size, model_.hidden_size});
    weights.lm_head = BindLmHead(weights.embedding);
    weights.final_norm = Norm(names_.final_norm);
    for (int i = 0; i < static_cast<int>(model_.layers.size()); ++i) {
      weights.layers.push_back(BindLayer(i, model_.layers[i]));
    }
    for (int layer : model_.early_exit_layers) {
      weights.early_exit_norms.push_back(Norm(Numbered(names_.early_exit_norm, "{layer}", layer)));
    }
    if (model_.mtp) weights.mtp = BindMtp(*model_.mtp);
    for (const auto& [name, view] : files_.tensors()) {
      if (!used_.contains(name)) {
        Problem(absl::StrCat(name, ": found ", view.ShapeString(),
                             ", wanted no such tensor: the model has no place for it"));
      }
    }
    return weights;
  }

  absl::Status StatusFor(const std::string& folder) const {
    if (problem_count_ == 0) return absl::OkStatus();
    std::string message = absl::StrCat(folder, ": ", absl::StrJoin(problems_, "; "));
    if (problem_count_ > problems_.size()) {
      absl::StrAppend(&message, "; and ", problem_count_ - problems_.size(), " more");
    }
    return absl::InvalidArgumentError(message);
  }

  std::vector<TensorShape> TakeMissing() { return std::move(missing_); }

 private:
  static std::string Numbered(const std::string& pattern, absl::string_view slot, int number) {
    return absl::StrReplaceAll(pattern, {{slot, absl::StrCat(number)}});
  }

  void Problem(std::string problem) {
    ++problem_count_;
    if (problems_.size() < kMaxProblemsShown) problems_.push_back(std::move(problem));
  }

  TensorView Take(const std::string& name, std::initializer_list<int64_t> shape) {
    const TensorView* view = files_.Find(name);
    const std::string wanted = absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
    if (view == nullptr) {
      if (missing_names_.insert(name).second) missing_.push_back({name, shape});
      Problem(absl::StrCat(name, ": found nothing, wanted ", wanted));
      return {};
    }
    used_.insert(view->name);
    if (!std::equal(shape.begin(), shape.end(), view->shape.begin(), view->shape.end())) {
      Problem(absl::StrCat(name, ": shape: found ", view->ShapeString(), ", wanted ", wanted));
      return {};
    }
    if (view->dtype != StoredDType::kBF16 && view->dtype != StoredDType::kF16 &&
        view->dtype != StoredDType::kF32) {
      Problem(absl::StrCat(name, ": dtype: found ", DTypeName(view->dtype),
                           ", wanted BF16, F16 or F32"));
      return {};
    }
    return *view;
  }

  TensorView Norm(const std::string& name) { return Take(name, {model_.hidden_size}); }

  // Every matrix of a tensor of its own comes from here.
  MatrixView Matrix(const std::string& name, int rows, int cols) {
    if (!quantization_.empty()) {
      std::vector<absl::string_view> used;
      return Resolved(quantization_.Resolve(files_, name, rows, cols, &used), used);
    }
    const TensorView tensor = Take(name, {rows, cols});
    return tensor.empty() ? MatrixView() : MatrixView::Of(tensor);
  }

  MatrixView Resolved(const absl::StatusOr<MatrixView>& matrix,
                      const std::vector<absl::string_view>& used) {
    used_.insert(used.begin(), used.end());
    if (matrix.ok()) return *matrix;
    Problem(std::string(matrix.status().message()));
    return {};
  }

  // Every matrix [rows, cols] of a tensor [experts, cols, which.step * rows] comes from here.
  MatrixView FusedMatrix(const std::string& name, const FusedRows& which, int rows, int cols) {
    const WeightScheme* scheme = quantization_.SchemeOf(name);
    if (scheme != nullptr && scheme->layout == WeightLayout::kMxfp4Experts) {
      std::vector<absl::string_view> used;
      return Resolved(ResolveMxfp4(files_, name, which, rows, cols, &used), used);
    }
    const int64_t fused_rows = int64_t{rows} * which.step;
    const TensorView tensor = Take(name, {which.experts, cols, fused_rows});
    if (tensor.empty()) return {};
    return {.rows = rows,
            .cols = cols,
            .storage = PlainStorage{.tensor = tensor,
                                    .offset = which.expert * cols * fused_rows + which.first,
                                    .row_stride = which.step,
                                    .col_stride = fused_rows}};
  }

  MatrixView Bias(const std::string& weight_name, int size) {
    const TensorView bias =
        Take(absl::StrCat(absl::StripSuffix(weight_name, "weight"), "bias"), {size});
    if (bias.empty()) return {};
    return {.rows = 1, .cols = size, .storage = PlainStorage{.tensor = bias, .row_stride = size}};
  }

  LinearWeights Linear(const std::string& name, int out_features, int in_features,
                       bool bias = false) {
    return {.weight = Matrix(name, out_features, in_features),
            .bias = bias ? Bias(name, out_features) : MatrixView(),
            .out_features = out_features,
            .in_features = in_features};
  }

  LinearWeights FusedLinear(const std::string& name, const FusedRows& which, int out_features,
                            int in_features, bool bias) {
    LinearWeights linear{.weight = FusedMatrix(name, which, out_features, in_features),
                         .out_features = out_features,
                         .in_features = in_features};
    if (!bias) return linear;
    const int64_t fused_rows = int64_t{out_features} * which.step;
    const TensorView tensor = Take(name + "_bias", {which.experts, fused_rows});
    if (tensor.empty()) return linear;
    linear.bias = {.rows = 1,
                   .cols = out_features,
                   .storage = PlainStorage{.tensor = tensor,
                                           .offset = which.expert * fused_rows + which.first,
                                           .row_stride = fused_rows,
                                           .col_stride = which.step}};
    return linear;
  }

  LinearWeights BindLmHead(const TensorView& embedding) {
    // Some tools save a tied head a second time; the embedding is what counts.
    if (model_.tied_embeddings) {
      Skip(names_.lm_head);
      return {.weight = embedding.empty() ? MatrixView() : MatrixView::Of(embedding),
              .out_features = model_.vocab_size,
              .in_features = model_.hidden_size};
    }
    return Linear(names_.lm_head, model_.vocab_size, model_.hidden_size);
  }

  // Leaves out a tensor that may be there.
  void Skip(const std::string& name) {
    if (const TensorView* view = files_.Find(name)) used_.insert(view->name);
  }

  KvWeights BindKv(const std::string& prefix, const AttentionDescription& attention) {
    KvWeights kv;
    const bool bias = attention.qkv_bias;
    kv.k_proj = Linear(prefix + names_.k_proj, attention.key_size(), model_.hidden_size, bias);
    kv.v_proj = Linear(prefix + names_.v_proj, attention.value_size(), model_.hidden_size, bias);
    kv.k_norm = QkNormWeight(prefix + names_.k_norm, attention, attention.kv_heads);
    return kv;
  }

  TensorView QkNormWeight(const std::string& name, const AttentionDescription& attention,
                          int heads) {
    if (attention.qk_norm == QkNorm::kNone) return {};
    const bool per_head = attention.qk_norm == QkNorm::kPerHead;
    return Take(name, {per_head ? attention.head_dim : heads * attention.head_dim});
  }

  MlaWeights BindMla(const std::string& prefix, const AttentionDescription& attention) {
    const MlaDescription& dims = *attention.mla;
    const int expanded = attention.heads * (dims.nope_dim + attention.value_dim);
    MlaWeights mla;
    if (dims.query_latent_dim > 0) {
      mla.q_a_proj = Linear(prefix + names_.q_a_proj, dims.query_latent_dim, model_.hidden_size);
      mla.q_a_norm = Take(prefix + names_.q_a_norm, {dims.query_latent_dim});
    }
    mla.kv_a_proj =
        Linear(prefix + names_.kv_a_proj, dims.latent_dim + dims.rope_dim, model_.hidden_size);
    mla.kv_a_norm = Take(prefix + names_.kv_a_norm, {dims.latent_dim});
    mla.kv_b_proj = Linear(prefix + names_.kv_b_proj, expanded, dims.latent_dim);
    return mla;
  }

  LinearWeights BindQueries(const std::string& prefix, const AttentionDescription& attention) {
    if (attention.mla && attention.mla->query_latent_dim > 0) {
      return Linear(prefix + names_.q_b_proj, attention.query_size(),
                    attention.mla->query_latent_dim);
    }
    return Linear(prefix + names_.q_proj, attention.query_size(), model_.hidden_size,
                  attention.qkv_bias);
  }

  CompressorWeights BindCompressor(const std::string& prefix, int head_dim, int block) {
    return {Take(prefix + names_.phi_position, {block, head_dim}),
            Linear(prefix + names_.phi_w1, head_dim, head_dim),
            Linear(prefix + names_.phi_w2, head_dim, head_dim)};
  }

  NsaWeights BindNsa(const std::string& prefix, const AttentionDescription& attention) {
    const int block = attention.nsa->compress_block;
    NsaWeights nsa;
    nsa.compressed = BindKv(prefix + names_.nsa_compressed, attention);
    nsa.selected = BindKv(prefix + names_.nsa_selected, attention);
    nsa.window = BindKv(prefix + names_.nsa_window, attention);
    nsa.branch_gate =
        Linear(prefix + names_.nsa_branch_gate, 3 * attention.heads, model_.hidden_size);
    nsa.phi_k = BindCompressor(prefix + names_.nsa_phi_k, attention.head_dim, block);
    nsa.phi_v = BindCompressor(prefix + names_.nsa_phi_v, attention.head_dim, block);
    return nsa;
  }

  AttentionWeights BindAttention(const std::string& prefix, const AttentionDescription& attention) {
    AttentionWeights weights;
    weights.q_proj = BindQueries(prefix, attention);
    weights.o_proj = Linear(prefix + names_.o_proj, model_.hidden_size, attention.attended_size(),
                            attention.output_bias);
    weights.q_norm = QkNormWeight(prefix + names_.q_norm, attention, attention.heads);
    if (attention.sinks) weights.sinks = Take(prefix + names_.sinks, {attention.heads});
    if (attention.nsa) {
      weights.kv = BindNsa(prefix, attention);
    } else if (attention.mla) {
      weights.kv = BindMla(prefix, attention);
    } else {
      weights.kv = BindKv(prefix, attention);
    }
    if (attention.head_gate) {
      const int inner = attention.head_gate->inner_size;
      weights.head_gate =
          HeadGateWeights{Linear(prefix + names_.gate_down, inner, model_.hidden_size),
                          Linear(prefix + names_.gate_up, attention.heads, inner)};
    }
    return weights;
  }

  SwigluWeights BindSwiglu(const std::string& prefix, int inner_size, bool bias) {
    return {Linear(prefix + names_.ffn_gate, inner_size, model_.hidden_size, bias),
            Linear(prefix + names_.ffn_up, inner_size, model_.hidden_size, bias),
            Linear(prefix + names_.ffn_down, model_.hidden_size, inner_size, bias)};
  }

  SwigluWeights BindExpert(const std::string& prefix, const MoeFfn& moe, int expert) {
    const int inner = moe.expert_inner_size;
    if (names_.fused_gate_up.empty()) {
      return BindSwiglu(prefix + Numbered(names_.expert, "{expert}", expert), inner,
                        moe.expert_bias);
    }
    const FusedRows gate{.experts = moe.experts, .expert = expert, .first = 0, .step = 2};
    const FusedRows up{.experts = moe.experts, .expert = expert, .first = 1, .step = 2};
    const FusedRows down{.experts = moe.experts, .expert = expert};
    const std::string gate_up = prefix + names_.fused_gate_up;
    return {
        FusedLinear(gate_up, gate, inner, model_.hidden_size, moe.expert_bias),
        FusedLinear(gate_up, up, inner, model_.hidden_size, moe.expert_bias),
        FusedLinear(prefix + names_.fused_down, down, model_.hidden_size, inner, moe.expert_bias)};
  }

  MoeWeights BindMoe(const std::string& prefix, const MoeFfn& moe) {
    MoeWeights weights;
    weights.router =
        Linear(prefix + names_.router, moe.experts, model_.hidden_size, moe.router.logit_bias);
    if (moe.router.correction_bias) {
      weights.correction_bias = Take(prefix + names_.correction_bias, {moe.experts});
    }
    for (int e = 0; e < moe.experts; ++e) weights.experts.push_back(BindExpert(prefix, moe, e));
    if (moe.shared_inner_size > 0) {
      weights.shared =
          BindSwiglu(prefix + names_.shared_expert, moe.shared_inner_size, moe.expert_bias);
    }
    return weights;
  }

  std::variant<SwigluWeights, MoeWeights> BindFfn(const std::string& prefix,
                                                  const FfnDescription& ffn) {
    if (const auto* moe = std::get_if<MoeFfn>(&ffn)) return BindMoe(prefix, *moe);
    const auto& dense = std::get<DenseFfn>(ffn);
    return BindSwiglu(prefix, dense.inner_size, dense.bias);
  }

  SublayerNorms BindNorms(NormPlace place, const std::string& before, const std::string& after) {
    return {.before = place != NormPlace::kAfter ? Norm(before) : TensorView(),
            .after = place != NormPlace::kBefore ? Norm(after) : TensorView()};
  }

  LayerWeights BindLayer(int index, const LayerDescription& layer) {
    const std::string prefix = Numbered(names_.layer, "{layer}", index);
    for (const std::string& name : names_.ignored) Skip(prefix + name);
    return {BindNorms(layer.norm_place, prefix + names_.attention_norm,
                      prefix + names_.attention_after_norm),
            BindNorms(layer.norm_place, prefix + names_.ffn_norm, prefix + names_.ffn_after_norm),
            BindAttention(prefix + names_.attention, layer.attention),
            BindFfn(prefix + names_.ffn, layer.ffn)};
  }

  MtpWeights BindMtp(const MtpDescription& mtp) {
    const std::string prefix = Numbered(names_.layer, "{layer}", model_.mtp_layer_index());
    return {Norm(prefix + names_.mtp_embedding_norm), Norm(prefix + names_.mtp_hidden_norm),
            Linear(prefix + names_.mtp_input_proj, model_.hidden_size, 2 * model_.hidden_size),
            BindLayer(model_.mtp_layer_index(), mtp.layer), Norm(prefix + names_.mtp_head_norm)};
  }

  const SafetensorsCheckpoint& files_;
  const ModelDescription& model_;
  const TensorNames& names_;
  const Quantization& quantization_;
  std::set<absl::string_view> used_;  // names owned by files_
  std::vector<TensorShape> missing_;
  std::set<std::string> missing_names_;
  std::vector<std::string> problems_;
  size_t problem_count_ = 0;
};

}  // namespace

absl::StatusOr<ModelWeights> BindWeights(const std::string& folder,
                                         const SafetensorsCheckpoint& files,
                                         const ModelDescription& description,
                                         const TensorNames& names,
                                         const Quantization& quantization) {
  WeightBinder binder(files, description, names, quantization);
  ModelWeights weights = binder.Bind();
  if (absl::Status status = binder.StatusFor(folder); !status.ok()) return status;
  return weights;
}

std::vector<TensorShape> TensorsOf(const ModelDescription& description, const TensorNames& names) {
  const SafetensorsCheckpoint nothing;
  const Quantization plain;
  WeightBinder binder(nothing, description, names, plain);
  binder.Bind();
  return binder.TakeMissing();
}

bool HoldsMtp(const SafetensorsCheckpoint& files, const ModelDescription& description,
              const TensorNames& names) {
  const std::string prefix =
      absl::StrReplaceAll(names.layer, {{"{layer}", absl::StrCat(description.mtp_layer_index())}});
  return std::ranges::any_of(
      files.tensors(), [&](const auto& tensor) { return absl::StartsWith(tensor.first, prefix); });
}

}  // namespace troupe
