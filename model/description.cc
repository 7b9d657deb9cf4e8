#include "model/description.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_util.h"

namespace troupe {
namespace {

absl::Status Wanted(absl::string_view what, absl::string_view field, int64_t found,
                    absl::string_view wanted) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, ": ", field, ": found ", found, ", wanted ", wanted));
}

absl::Status Positive(absl::string_view what, absl::string_view field, int64_t found) {
  return found > 0 ? absl::OkStatus() : Wanted(what, field, found, "a positive number");
}

absl::Status ValidateNsa(absl::string_view what, const NsaDescription& nsa) {
  TROUPE_RETURN_IF_ERROR(Positive(what, "compress_stride", nsa.compress_stride));
  if (kBlockTokens % nsa.compress_stride != 0) {
    return Wanted(what, "compress_stride", nsa.compress_stride, "a divisor of 64");
  }
  if (nsa.compress_block <= 0 || nsa.compress_block % nsa.compress_stride != 0) {
    return Wanted(what, "compress_block", nsa.compress_block, "a multiple of compress_stride");
  }
  if (nsa.select_block != kBlockTokens) {
    return Wanted(what, "select_block", nsa.select_block, "64, the tokens of a KV block");
  }
  if (nsa.init_blocks < 0) return Wanted(what, "init_blocks", nsa.init_blocks, "at least 0");
  if (nsa.local_blocks < 1) return Wanted(what, "local_blocks", nsa.local_blocks, "at least 1");
  if (nsa.selected_blocks < nsa.init_blocks + nsa.local_blocks) {
    return Wanted(what, "selected_blocks", nsa.selected_blocks,
                  absl::StrCat("at least ", nsa.init_blocks + nsa.local_blocks,
                               ": the init and local blocks are among them"));
  }
  return absl::OkStatus();
}

absl::Status PositiveNumber(absl::string_view what, absl::string_view field, float found) {
  if (found > 0 && std::isfinite(found)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, ": ", field, ": found ", found, ", wanted a positive number"));
}

// `turned_dims` are those of a head that the rope may turn.
absl::Status ValidateRope(absl::string_view what, const RopeDescription& rope, int turned_dims) {
  if (rope.kind == RopeKind::kNone) return absl::OkStatus();
  if (rope.rotated_dims <= 0 || rope.rotated_dims % 2 != 0 || rope.rotated_dims > turned_dims) {
    return Wanted(what, "rope.rotated_dims", rope.rotated_dims,
                  absl::StrCat("an even number up to ", turned_dims));
  }
  if (rope.inverse_frequency.size() != static_cast<size_t>(rope.rotated_dims) / 2) {
    return Wanted(what, "rope.inverse_frequency", rope.inverse_frequency.size(),
                  "a frequency for each pair of rotated_dims");
  }
  for (float frequency : rope.inverse_frequency) {
    TROUPE_RETURN_IF_ERROR(PositiveNumber(what, "rope.inverse_frequency", frequency));
  }
  return PositiveNumber(what, "rope.amplitude", rope.amplitude);
}

absl::Status ValidateMla(absl::string_view what, const AttentionDescription& attention) {
  const MlaDescription& mla = *attention.mla;
  if (attention.kind != AttentionKind::kFull) {
    return Wanted(what, "mla", 1, "none but for full attention");
  }
  if (mla.query_latent_dim < 0) {
    return Wanted(what, "mla.query_latent_dim", mla.query_latent_dim, "at least 0");
  }
  TROUPE_RETURN_IF_ERROR(Positive(what, "mla.latent_dim", mla.latent_dim));
  TROUPE_RETURN_IF_ERROR(Positive(what, "mla.nope_dim", mla.nope_dim));
  TROUPE_RETURN_IF_ERROR(Positive(what, "mla.rope_dim", mla.rope_dim));
  TROUPE_RETURN_IF_ERROR(PositiveNumber(what, "mla.norm_epsilon", mla.norm_epsilon));
  if (attention.head_dim != mla.nope_dim + mla.rope_dim) {
    return Wanted(what, "head_dim", attention.head_dim,
                  absl::StrCat("nope_dim + rope_dim = ", mla.nope_dim + mla.rope_dim));
  }
  if (attention.kv_heads != attention.heads) {
    return Wanted(what, "kv_heads", attention.kv_heads,
                  absl::StrCat("as many as the ", attention.heads, " heads of latent attention"));
  }
  if (attention.rope.kind != RopeKind::kNone && attention.rope.rotated_dims != mla.rope_dim) {
    return Wanted(what, "rope.rotated_dims", attention.rope.rotated_dims,
                  absl::StrCat("mla.rope_dim = ", mla.rope_dim));
  }
  if (attention.qk_norm != QkNorm::kNone) {
    return Wanted(what, "qk_norm", 1, "none beside the norms of the latents");
  }
  if (attention.sinks) return Wanted(what, "sinks", 1, "none for latent attention");
  return absl::OkStatus();
}

absl::Status ValidateAttention(absl::string_view what, const AttentionDescription& attention) {
  TROUPE_RETURN_IF_ERROR(Positive(what, "heads", attention.heads));
  TROUPE_RETURN_IF_ERROR(Positive(what, "kv_heads", attention.kv_heads));
  TROUPE_RETURN_IF_ERROR(Positive(what, "head_dim", attention.head_dim));
  if (attention.heads % attention.kv_heads != 0) {
    return Wanted(what, "kv_heads", attention.kv_heads,
                  absl::StrCat("a divisor of the ", attention.heads, " heads"));
  }
  TROUPE_RETURN_IF_ERROR(Positive(what, "value_dim", attention.value_dim));
  TROUPE_RETURN_IF_ERROR(PositiveNumber(what, "score_scale", attention.score_scale));
  TROUPE_RETURN_IF_ERROR(ValidateRope(what, attention.rope, attention.head_dim));
  if (attention.kind != AttentionKind::kFull) {
    TROUPE_RETURN_IF_ERROR(Positive(what, "window_tokens", attention.window_tokens));
  }
  if ((attention.kind == AttentionKind::kNsa) != attention.nsa.has_value()) {
    return Wanted(what, "nsa", attention.nsa.has_value(), "NSA sizes exactly for NSA layers");
  }
  if (attention.head_gate) {
    TROUPE_RETURN_IF_ERROR(Positive(what, "head_gate.inner_size", attention.head_gate->inner_size));
  }
  if (attention.mla) {
    TROUPE_RETURN_IF_ERROR(ValidateMla(what, attention));
  }
  if (!attention.nsa) return absl::OkStatus();
  if (attention.sinks) return Wanted(what, "sinks", 1, "none for NSA");
  if (attention.qk_norm == QkNorm::kFullWidth) {
    return Wanted(what, "qk_norm", 2, "a norm of each head, or none, for NSA");
  }
  return ValidateNsa(what, *attention.nsa);
}

absl::Status ValidateActivation(absl::string_view what, const Activation& activation) {
  if (activation.kind != ActivationKind::kClampedSilu) return absl::OkStatus();
  TROUPE_RETURN_IF_ERROR(PositiveNumber(what, "ffn.activation.alpha", activation.alpha));
  return PositiveNumber(what, "ffn.activation.limit", activation.limit);
}

absl::Status ValidateRouter(absl::string_view what, const MoeFfn& moe) {
  const RouterDescription& router = moe.router;
  TROUPE_RETURN_IF_ERROR(PositiveNumber(what, "ffn.router.weight_scale", router.weight_scale));
  if (router.groups < 1 || moe.experts % router.groups != 0) {
    return Wanted(what, "ffn.router.groups", router.groups,
                  absl::StrCat("a divisor of the ", moe.experts, " experts"));
  }
  if (router.groups_chosen < 1 || router.groups_chosen > router.groups) {
    return Wanted(what, "ffn.router.groups_chosen", router.groups_chosen,
                  absl::StrCat("1 to ", router.groups, ", the number of groups"));
  }
  const int group_size = moe.experts / router.groups;
  if (router.group_score == GroupScore::kNone && router.groups != 1) {
    return Wanted(what, "ffn.router.groups", router.groups, "1 where groups have no score");
  }
  if (router.group_score == GroupScore::kTopTwoSum && group_size < 2) {
    return Wanted(what, "ffn.router.groups", router.groups,
                  "groups of two experts or more, whose scores are added");
  }
  if (moe.experts_per_token > router.groups_chosen * group_size) {
    return Wanted(what, "ffn.experts_per_token", moe.experts_per_token,
                  absl::StrCat("at most the ", router.groups_chosen * group_size,
                               " experts of the groups chosen"));
  }
  return absl::OkStatus();
}

absl::Status ValidateFfn(absl::string_view what, const FfnDescription& ffn) {
  if (const auto* dense = std::get_if<DenseFfn>(&ffn)) {
    TROUPE_RETURN_IF_ERROR(Positive(what, "ffn.inner_size", dense->inner_size));
    return ValidateActivation(what, dense->activation);
  }
  const auto& moe = std::get<MoeFfn>(ffn);
  TROUPE_RETURN_IF_ERROR(Positive(what, "ffn.experts", moe.experts));
  TROUPE_RETURN_IF_ERROR(Positive(what, "ffn.expert_inner_size", moe.expert_inner_size));
  if (moe.experts_per_token < 1 || moe.experts_per_token > moe.experts) {
    return Wanted(what, "ffn.experts_per_token", moe.experts_per_token,
                  absl::StrCat("1 to ", moe.experts, ", the number of experts"));
  }
  if (moe.shared_inner_size < 0) {
    return Wanted(what, "ffn.shared_inner_size", moe.shared_inner_size, "at least 0");
  }
  TROUPE_RETURN_IF_ERROR(ValidateRouter(what, moe));
  return ValidateActivation(what, moe.activation);
}

// Bounds what a hostile config can make the binder hold.
constexpr int64_t kMaxExpertsOfAllLayers = 1 << 18;

absl::Status ValidateExpertCount(const ModelDescription& description) {
  int64_t experts = 0;
  for (const LayerDescription& layer : description.layers) {
    if (const auto* moe = std::get_if<MoeFfn>(&layer.ffn)) experts += moe->experts;
  }
  if (experts <= kMaxExpertsOfAllLayers) return absl::OkStatus();
  return Wanted("model", "experts of all layers", experts,
                absl::StrCat("at most ", kMaxExpertsOfAllLayers));
}

absl::Status ValidateLayer(absl::string_view what, const LayerDescription& layer) {
  TROUPE_RETURN_IF_ERROR(ValidateAttention(what, layer.attention));
  return ValidateFfn(what, layer.ffn);
}

// Collects streams into groups, in the order in which groups are first asked for.
class GroupBuilder {
 public:
  explicit GroupBuilder(const StateGroupOptions& options) : options_(options) {}

  void Add(StateGroupKind kind, int window_tokens, int stride_tokens, KvBranch branch, int layer,
           const AttentionDescription& attention) {
    AddStream(kind, window_tokens, stride_tokens,
              {.layer = layer,
               .branch = branch,
               .kv_heads = attention.kv_heads,
               .key_dim = attention.head_dim,
               .value_dim = attention.value_dim});
  }

  void AddStream(StateGroupKind kind, int window_tokens, int stride_tokens, StateStream stream) {
    StateGroup& group = Find(kind, window_tokens, stride_tokens);
    if (stream.layer < options_.first_layer || stream.layer >= options_.end_layer) return;
    const int64_t rows = int64_t{stream.kv_heads} * group.entries_per_block;
    const auto bytes = [&](int64_t dim) {
      return dim == 0 ? 0 : rows * (dim * options_.kv_bytes_per_element + options_.kv_scale_bytes);
    };
    stream.key_offset_bytes = group.page_bytes;
    stream.value_offset_bytes = stream.key_offset_bytes + bytes(stream.key_dim);
    group.page_bytes = stream.value_offset_bytes + bytes(stream.value_dim);
    group.streams.push_back(stream);
  }

  void AddLayer(int layer, const AttentionDescription& attention) {
    if (attention.mla) {
      return AddStream(StateGroupKind::kFull, 0, 1,
                       {.layer = layer,
                        .branch = KvBranch::kMlaLatent,
                        .kv_heads = 1,
                        .key_dim = attention.mla->latent_dim + attention.mla->rope_dim});
    }
    switch (attention.kind) {
      case AttentionKind::kFull:
        return Add(StateGroupKind::kFull, 0, 1, KvBranch::kSelf, layer, attention);
      case AttentionKind::kSliding:
        return Add(StateGroupKind::kWindow, attention.window_tokens, 1, KvBranch::kSelf, layer,
                   attention);
      case AttentionKind::kNsa:
        Add(StateGroupKind::kFull, 0, 1, KvBranch::kNsaSelected, layer, attention);
        Add(StateGroupKind::kWindow, attention.window_tokens, 1, KvBranch::kNsaWindow, layer,
            attention);
        // An entry is computed from the last compress_block raw tokens, its own last one included:
        // a window like any other, so that full pages stay immutable.
        Add(StateGroupKind::kWindow, attention.nsa->compress_block, 1, KvBranch::kNsaRaw, layer,
            attention);
        return Add(StateGroupKind::kCompressed, 0, attention.nsa->compress_stride,
                   KvBranch::kNsaCompressed, layer, attention);
    }
  }

  std::vector<StateGroup> Take() {
    std::sort(groups_.begin(), groups_.end(), [](const StateGroup& a, const StateGroup& b) {
      return std::tuple(a.kind, -a.window_tokens, a.stride_tokens) <
             std::tuple(b.kind, -b.window_tokens, b.stride_tokens);
    });
    return std::move(groups_);
  }

 private:
  StateGroup& Find(StateGroupKind kind, int window_tokens, int stride_tokens) {
    for (StateGroup& group : groups_) {
      if (group.kind == kind && group.window_tokens == window_tokens &&
          group.stride_tokens == stride_tokens) {
        return group;
      }
    }
    StateGroup group{.kind = kind,
                     .window_tokens = window_tokens,
                     .stride_tokens = stride_tokens,
                     .entries_per_block = kBlockTokens / stride_tokens};
    switch (kind) {
      case StateGroupKind::kFull:
        group.name = "full";
        break;
      case StateGroupKind::kWindow:
        group.name = absl::StrCat("window.", window_tokens);
        break;
      case StateGroupKind::kCompressed:
        group.name = absl::StrCat("compressed.", stride_tokens);
        break;
    }
    return groups_.emplace_back(std::move(group));
  }

  StateGroupOptions options_;
  std::vector<StateGroup> groups_;
};

}  // namespace

absl::Status ValidateDescription(const ModelDescription& description) {
  TROUPE_RETURN_IF_ERROR(Positive("model", "vocab_size", description.vocab_size));
  TROUPE_RETURN_IF_ERROR(Positive("model", "hidden_size", description.hidden_size));
  TROUPE_RETURN_IF_ERROR(Positive("model", "max_context_tokens", description.max_context_tokens));
  TROUPE_RETURN_IF_ERROR(Positive("model", "layers", description.mtp_layer_index()));
  TROUPE_RETURN_IF_ERROR(PositiveNumber("model", "rms_epsilon", description.rms_epsilon));
  TROUPE_RETURN_IF_ERROR(PositiveNumber("model", "embedding_scale", description.embedding_scale));
  if (!std::isfinite(description.norm_weight_offset)) {
    return absl::InvalidArgumentError(absl::StrCat("model: norm_weight_offset: found ",
                                                   description.norm_weight_offset,
                                                   ", wanted a finite number"));
  }
  TROUPE_RETURN_IF_ERROR(ValidateExpertCount(description));
  for (uint32_t token : description.end_tokens) {
    if (token >= static_cast<uint32_t>(description.vocab_size)) {
      return Wanted("model", "end_tokens", token,
                    absl::StrCat("tokens under ", description.vocab_size));
    }
  }
  for (size_t i = 0; i < description.layers.size(); ++i) {
    TROUPE_RETURN_IF_ERROR(ValidateLayer(absl::StrCat("layer ", i), description.layers[i]));
  }
  int after = -1;
  for (int layer : description.early_exit_layers) {
    if (layer <= after || layer >= description.mtp_layer_index() - 1) {
      return Wanted("model", "early_exit_layers", layer,
                    "ascending layers, each before the last one");
    }
    after = layer;
  }
  return description.mtp ? ValidateLayer("MTP layer", description.mtp->layer) : absl::OkStatus();
}

std::vector<StateGroup> StateGroups(const ModelDescription& description,
                                    const StateGroupOptions& options) {
  GroupBuilder builder(options);
  for (size_t i = 0; i < description.layers.size(); ++i) {
    builder.AddLayer(static_cast<int>(i), description.layers[i].attention);
  }
  if (options.with_mtp && description.mtp) {
    builder.AddLayer(description.mtp_layer_index(), description.mtp->layer.attention);
  }
  return builder.Take();
}

int64_t StateBytes(const std::vector<StateGroup>& groups, int64_t tokens) {
  int64_t bytes = 0;
  const int64_t blocks = (tokens + kBlockTokens - 1) / kBlockTokens;
  for (const StateGroup& group : groups) {
    int64_t kept = blocks;
    if (group.kind == StateGroupKind::kWindow) {
      // The next query sits at `tokens` and sees window_tokens - 1 before it.
      const int64_t first_token = std::max<int64_t>(0, tokens - group.window_tokens + 1);
      kept = blocks - first_token / kBlockTokens;
    }
    bytes += kept * group.page_bytes;
  }
  return bytes;
}

}  // namespace troupe
