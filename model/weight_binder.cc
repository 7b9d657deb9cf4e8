#include "model/weight_binder.h"

#include <initializer_list>
#include <set>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"

namespace troupe {
namespace {

constexpr size_t kMaxProblemsShown = 8;

class WeightBinder {
 public:
  WeightBinder(const SafetensorsCheckpoint& files, const ModelDescription& description,
               const TensorNames& names)
      : files_(files), model_(description), names_(names) {}

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
    } else if (view->dtype != StoredDType::kBF16 && view->dtype != StoredDType::kF16 &&
               view->dtype != StoredDType::kF32) {
      Problem(absl::StrCat(name, ": dtype: found ", DTypeName(view->dtype),
                           ", wanted BF16, F16 or F32"));
    }
    return *view;
  }

  TensorView Norm(const std::string& name) { return Take(name, {model_.hidden_size}); }

  LinearWeights Linear(const std::string& name, int out_features, int in_features) {
    const TensorView tensor = Take(name, {out_features, in_features});
    return {.weight = tensor.shape.size() == 2 ? MatrixView::Of(tensor) : MatrixView(),
            .out_features = out_features,
            .in_features = in_features};
  }

  LinearWeights BindLmHead(const TensorView& embedding) {
    // Some tools save a tied head a second time; the embedding is what counts.
    if (model_.tied_embeddings) {
      if (files_.Find(names_.lm_head) != nullptr) used_.insert(names_.lm_head);
      return {.weight = embedding.shape.size() == 2 ? MatrixView::Of(embedding) : MatrixView(),
              .out_features = model_.vocab_size,
              .in_features = model_.hidden_size};
    }
    return Linear(names_.lm_head, model_.vocab_size, model_.hidden_size);
  }

  KvWeights BindKv(const std::string& prefix, const AttentionDescription& attention) {
    KvWeights kv;
    kv.k_proj = Linear(prefix + names_.k_proj, attention.key_size(), model_.hidden_size);
    kv.v_proj = Linear(prefix + names_.v_proj, attention.value_size(), model_.hidden_size);
    if (attention.qk_norm != QkNorm::kNone) {
      kv.k_norm = Take(prefix + names_.k_norm, {attention.head_dim});
    }
    return kv;
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
    weights.q_proj = Linear(prefix + names_.q_proj, attention.query_size(), model_.hidden_size);
    weights.o_proj = Linear(prefix + names_.o_proj, model_.hidden_size, attention.attended_size());
    if (attention.qk_norm != QkNorm::kNone) {
      weights.q_norm = Take(prefix + names_.q_norm, {attention.head_dim});
    }
    if (attention.nsa) {
      weights.kv = BindNsa(prefix, attention);
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

  SwigluWeights BindSwiglu(const std::string& prefix, int inner_size) {
    return {Linear(prefix + names_.ffn_gate, inner_size, model_.hidden_size),
            Linear(prefix + names_.ffn_up, inner_size, model_.hidden_size),
            Linear(prefix + names_.ffn_down, model_.hidden_size, inner_size)};
  }

  MoeWeights BindMoe(const std::string& prefix, const MoeFfn& moe) {
    MoeWeights weights;
    weights.router = Linear(prefix + names_.router, moe.experts, model_.hidden_size);
    if (moe.router.correction_bias) {
      weights.correction_bias = Take(prefix + names_.correction_bias, {moe.experts});
    }
    for (int e = 0; e < moe.experts; ++e) {
      weights.experts.push_back(
          BindSwiglu(prefix + Numbered(names_.expert, "{expert}", e), moe.expert_inner_size));
    }
    if (moe.shared_inner_size > 0) {
      weights.shared = BindSwiglu(prefix + names_.shared_expert, moe.shared_inner_size);
    }
    return weights;
  }

  std::variant<SwigluWeights, MoeWeights> BindFfn(const std::string& prefix,
                                                  const FfnDescription& ffn) {
    if (const auto* moe = std::get_if<MoeFfn>(&ffn)) return BindMoe(prefix, *moe);
    return BindSwiglu(prefix, std::get<DenseFfn>(ffn).inner_size);
  }

  LayerWeights BindLayer(int index, const LayerDescription& layer) {
    const std::string prefix = Numbered(names_.layer, "{layer}", index);
    return {{.before = Norm(prefix + names_.attention_norm)},
            {.before = Norm(prefix + names_.ffn_norm)},
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
  std::set<absl::string_view> used_;  // names owned by files_ or names_
  std::vector<TensorShape> missing_;
  std::set<std::string> missing_names_;
  std::vector<std::string> problems_;
  size_t problem_count_ = 0;
};

int64_t Elements(const SwigluWeights& ffn) {
  return ffn.gate_proj.weight.elements() + ffn.up_proj.weight.elements() +
         ffn.down_proj.weight.elements();
}

// Elements that no token of the decoder's own prediction uses.
int64_t IdleElements(const ModelDescription& description, const ModelWeights& weights) {
  int64_t idle = 0;
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    const auto* moe = std::get_if<MoeWeights>(&weights.layers[i].ffn);
    if (moe == nullptr) continue;
    const int chosen = std::get<MoeFfn>(description.layers[i].ffn).experts_per_token;
    for (size_t e = chosen; e < moe->experts.size(); ++e) idle += Elements(moe->experts[e]);
  }
  for (const TensorView& norm : weights.early_exit_norms) idle += norm.elements();
  return idle;
}

}  // namespace

absl::StatusOr<ModelWeights> BindWeights(const std::string& folder,
                                         const SafetensorsCheckpoint& files,
                                         const ModelDescription& description,
                                         const TensorNames& names) {
  WeightBinder binder(files, description, names);
  ModelWeights weights = binder.Bind();
  if (absl::Status status = binder.StatusFor(folder); !status.ok()) return status;
  return weights;
}

std::vector<TensorShape> TensorsOf(const ModelDescription& description, const TensorNames& names) {
  const SafetensorsCheckpoint nothing;
  WeightBinder binder(nothing, description, names);
  binder.Bind();
  return binder.TakeMissing();
}

ParameterCounts CountParameters(const SafetensorsCheckpoint& files,
                                const ModelDescription& description, const ModelWeights& weights,
                                const TensorNames& names) {
  ParameterCounts counts;
  const std::string mtp_prefix =
      absl::StrReplaceAll(names.layer, {{"{layer}", absl::StrCat(description.mtp_layer_index())}});
  int64_t mtp_elements = 0;
  for (const auto& [name, view] : files.tensors()) {
    counts.total += view.elements();
    counts.tensors += 1;
    counts.bytes_by_dtype[view.dtype] += static_cast<int64_t>(view.bytes.size());
    if (description.mtp && absl::StartsWith(name, mtp_prefix)) mtp_elements += view.elements();
  }
  counts.active = counts.total - mtp_elements - IdleElements(description, weights);
  return counts;
}

}  // namespace troupe
