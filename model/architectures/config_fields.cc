#include "model/architectures/config_fields.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

constexpr int64_t kMaxContextTokens = int64_t{1} << 30;

std::optional<uint32_t> TokenField(JsonFields& config, absl::string_view key) {
  if (!config.Has(key)) {
    config.Ignore({key});
    return std::nullopt;
  }
  return static_cast<uint32_t>(config.Int(key, 0, std::numeric_limits<uint32_t>::max()));
}

}  // namespace

int SizeField(JsonFields& config, absl::string_view key, int64_t max) {
  return static_cast<int>(config.Int(key, 1, max));
}

int ReadLayerCount(JsonFields& config) {
  return SizeField(config, "num_hidden_layers", kMaxLayers);
}

ModelDescription ReadCommonFields(JsonFields& config, bool tied_where_silent) {
  ModelDescription model;
  model.vocab_size = SizeField(config, "vocab_size", int64_t{1} << 24);
  model.hidden_size = SizeField(config, "hidden_size");
  model.rms_epsilon = static_cast<float>(config.Number("rms_norm_eps", 1e-12, 1.0));
  model.tied_embeddings = config.BoolOr("tie_word_embeddings", tied_where_silent);
  model.max_context_tokens = SizeField(config, "max_position_embeddings", kMaxContextTokens);
  model.bos_token = TokenField(config, "bos_token_id");
  model.pad_token = TokenField(config, "pad_token_id");
  for (int64_t token : config.IntOrList("eos_token_id", 0, model.vocab_size - 1)) {
    model.end_tokens.push_back(static_cast<uint32_t>(token));
  }
  return model;
}

AttentionDescription ReadHeads(JsonFields& config, int hidden_size, int head_dim_where_silent) {
  AttentionDescription attention;
  attention.heads = SizeField(config, "num_attention_heads");
  attention.kv_heads =
      static_cast<int>(config.IntOr("num_key_value_heads", 1, kMaxSize, attention.heads));
  if (!config.Has("head_dim") && head_dim_where_silent == 0 && hidden_size % attention.heads != 0) {
    config.Fail("head_dim", "nothing",
                absl::StrCat("a size: ", attention.heads,
                             " heads do not divide hidden_size = ", hidden_size));
  }
  const int otherwise =
      head_dim_where_silent > 0 ? head_dim_where_silent : hidden_size / attention.heads;
  attention.head_dim = static_cast<int>(config.IntOr("head_dim", 1, kMaxHeadDim, otherwise));
  if (attention.head_dim > kMaxHeadDim) {
    config.Fail("num_attention_heads", absl::StrCat(attention.heads),
                absl::StrCat("heads of at most ", kMaxHeadDim, " dimensions"));
    attention.head_dim = 1;
  }
  attention.value_dim = attention.head_dim;
  attention.score_scale = 1.0F / std::sqrt(static_cast<float>(attention.head_dim));
  return attention;
}

void ReadAttentionBias(JsonFields& config, AttentionDescription& attention, bool where_silent) {
  attention.qkv_bias = config.BoolOr("attention_bias", where_silent);
  attention.output_bias = attention.qkv_bias;
}

Activation ReadActivation(JsonFields& config, absl::string_view key) {
  const std::string name = config.String(key);
  if (name == "gelu_pytorch_tanh") return {.kind = ActivationKind::kGeluTanh};
  if (name != "silu") config.Fail(key, name, "silu or gelu_pytorch_tanh");
  return {.kind = ActivationKind::kSilu};
}

DenseFfn ReadDenseFfn(JsonFields& config) {
  return {.inner_size = SizeField(config, "intermediate_size"),
          .activation = ReadActivation(config)};
}

std::vector<AttentionKind> ReadLayerTypes(JsonFields& config, int layers,
                                          const std::function<bool(int layer)>& slides) {
  std::vector<AttentionKind> kinds(layers, AttentionKind::kFull);
  if (slides && !config.Has("layer_types")) {
    config.Ignore({"layer_types"});
    for (int i = 0; i < layers; ++i) {
      if (slides(i)) kinds[i] = AttentionKind::kSliding;
    }
    return kinds;
  }
  const std::vector<std::string> types = config.StringList("layer_types");
  if (types.size() != kinds.size()) {
    config.Fail("layer_types", absl::StrCat(types.size(), " entries"),
                absl::StrCat("num_hidden_layers = ", layers, " entries"));
  }
  for (size_t i = 0; i < std::min(types.size(), kinds.size()); ++i) {
    if (types[i] == "sliding_attention") {
      kinds[i] = AttentionKind::kSliding;
    } else if (types[i] != "full_attention") {
      config.Fail(absl::StrCat("layer_types[", i, "]"), types[i],
                  "sliding_attention or full_attention");
    }
  }
  return kinds;
}

void AddLayers(const SlidingLayers& sliding, const LayerDescription& layer,
               ModelDescription& model) {
  for (AttentionKind kind : sliding.kinds) {
    AttentionDescription& attention = model.layers.emplace_back(layer).attention;
    attention.kind = kind;
    if (kind == AttentionKind::kSliding) attention.window_tokens = sliding.window_tokens;
  }
}

SlidingLayers ReadSlidingLayers(JsonFields& config, int layers,
                                const std::function<bool(int layer)>& slides) {
  SlidingLayers sliding{.kinds = ReadLayerTypes(config, layers, slides)};
  const auto window = static_cast<int>(config.IntOr("sliding_window", 0, kMaxContextTokens, 0));
  if (std::ranges::count(sliding.kinds, AttentionKind::kSliding) == 0) return sliding;
  if (window == 0) {
    config.Fail("sliding_window", "nothing", "the tokens that a sliding_attention layer sees");
  }
  sliding.window_tokens = window;
  return sliding;
}

SlidingLayers ReadOptionalWindow(JsonFields& config, int layers,
                                 const std::function<bool(int layer)>& slides) {
  const bool windowed = config.BoolOr("use_sliding_window", false);
  const bool sized = windowed && config.Has("sliding_window");
  SlidingLayers sliding =
      ReadSlidingLayers(config, layers, [&](int layer) { return sized && slides(layer); });
  if (sliding.window_tokens > 0 && !windowed) {
    config.Fail("use_sliding_window", "false", "true: layer_types has sliding_attention");
  }
  return sliding;
}

SlidingLayers ReadUpperWindow(JsonFields& config, int layers) {
  const int64_t full_layers = config.IntOr("max_window_layers", 0, kMaxSize, 28);
  return ReadOptionalWindow(config, layers, [&](int layer) { return layer >= full_layers; });
}

}  // namespace troupe
