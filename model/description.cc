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

absl::Status ValidateAttention(absl::string_view what, const AttentionDescription& attention) {
  TROUPE_RETURN_IF_ERROR(Positive(what, "heads", attention.heads));
  TROUPE_RETURN_IF_ERROR(Positive(what, "kv_heads", attention.kv_heads));
  TROUPE_RETURN_IF_ERROR(Positive(what, "head_dim", attention.head_dim));
  if (attention.heads % attention.kv_heads != 0) {
    return Wanted(what, "kv_heads", attention.kv_heads,
                  absl::StrCat("a divisor of the ", attention.heads, " heads"));
  }
  TROUPE_RETURN_IF_ERROR(Positive(what, "value_dim", attention.value_dim));
  const RopeDescription& rope = attention.rope;
  if (rope.kind != RopeKind::kNone) {
    if (rope.rotated_dims <= 0 || rope.rotated_dims % 2 != 0 ||
        rope.rotated_dims > attention.head_dim) {
      return Wanted(what, "rope.rotated_dims", rope.rotated_dims,
                    absl::StrCat("an even number up to head_dim = ", attention.head_dim));
    }
    if (rope.inverse_frequency.size() != static_cast<size_t>(rope.rotated_dims) / 2) {
      return Wanted(what, "rope.inverse_frequency", rope.inverse_frequency.size(),
                    "a frequency for each pair of rotated_dims");
    }
  }
  if (attention.kind != AttentionKind::kFull) {
    TROUPE_RETURN_IF_ERROR(Positive(what, "window_tokens", attention.window_tokens));
  }
  if ((attention.kind == AttentionKind::kNsa) != attention.nsa.has_value()) {
    return Wanted(what, "nsa", attention.nsa.has_value(), "NSA sizes exactly for NSA layers");
  }
  if (attention.head_gate) {
    TROUPE_RETURN_IF_ERROR(Positive(what, "head_gate.inner_size", attention.head_gate->inner_size));
  }
  return attention.nsa ? ValidateNsa(what, *attention.nsa) : absl::OkStatus();
}

absl::Status ValidateFfn(absl::string_view what, const FfnDescription& ffn) {
  if (const auto* dense = std::get_if<DenseFfn>(&ffn)) {
    return Positive(what, "ffn.inner_size", dense->inner_size);
  }
  const auto& moe = std::get<MoeFfn>(ffn);
  TROUPE_RETURN_IF_ERROR(Positive(what, "ffn.experts", moe.experts));
  TROUPE_RETURN_IF_ERROR(Positive(what, "ffn.expert_inner_size", moe.expert_inner_size));
  if (moe.experts_per_token < 1 || moe.experts_per_token > moe.experts) {
    return Wanted(what, "ffn.experts_per_token", moe.experts_per_token,
                  absl::StrCat("1 to ", moe.experts, ", the number of experts"));
  }
  return absl::OkStatus();
}

absl::Status ValidateLayer(absl::string_view what, const LayerDescription& layer) {
  TROUPE_RETURN_IF_ERROR(ValidateAttention(what, layer.attention));
  return ValidateFfn(what, layer.ffn);
}

// Collects streams into groups, in the order in which groups are first asked for.
class GroupBuilder {
 public:
  explicit GroupBuilder(int bytes_per_element) : bytes_per_element_(bytes_per_element) {}

  void Add(StateGroupKind kind, int window_tokens, int stride_tokens, KvBranch branch, int layer,
           const AttentionDescription& attention) {
    StateGroup& group = Find(kind, window_tokens, stride_tokens);
    StateStream stream{.layer = layer,
                       .branch = branch,
                       .kv_heads = attention.kv_heads,
                       .key_dim = attention.head_dim,
                       .value_dim = attention.value_dim};
    const int64_t rows = int64_t{stream.kv_heads} * group.entries_per_block * bytes_per_element_;
    stream.key_offset_bytes = group.page_bytes;
    stream.value_offset_bytes = stream.key_offset_bytes + rows * stream.key_dim;
    group.page_bytes = stream.value_offset_bytes + rows * stream.value_dim;
    group.streams.push_back(stream);
  }

  void AddLayer(int layer, const AttentionDescription& attention) {
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

  int bytes_per_element_;
  std::vector<StateGroup> groups_;
};

}  // namespace

absl::Status ValidateDescription(const ModelDescription& description) {
  TROUPE_RETURN_IF_ERROR(Positive("model", "vocab_size", description.vocab_size));
  TROUPE_RETURN_IF_ERROR(Positive("model", "hidden_size", description.hidden_size));
  TROUPE_RETURN_IF_ERROR(Positive("model", "max_context_tokens", description.max_context_tokens));
  TROUPE_RETURN_IF_ERROR(Positive("model", "layers", description.mtp_layer_index()));
  if (!(description.rms_epsilon > 0)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "model: rms_epsilon: found ", description.rms_epsilon, ", wanted a positive number"));
  }
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
  GroupBuilder builder(options.kv_bytes_per_element);
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
