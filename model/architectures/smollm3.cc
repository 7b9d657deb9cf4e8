// SmolLM3: dense, with layers that know no positions.
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/architectures/config_fields.h"
#include "model/architectures/families.h"

namespace troupe {
namespace {

// 1 for each layer that turns queries and keys: no_rope_layers, whose name says the opposite of
// what its ones mean, else every layer but each no_rope_layer_interval-th.
std::vector<int64_t> ReadTurnedLayers(JsonFields& config, int layers) {
  const int64_t interval = config.IntOr("no_rope_layer_interval", 1, kMaxLayers, 4);
  std::vector<int64_t> otherwise(layers, 1);
  for (int i = 0; i < layers; ++i) otherwise[i] = (i + 1) % interval != 0 ? 1 : 0;
  std::vector<int64_t> turned = config.IntListOr("no_rope_layers", 0, 1, std::move(otherwise));
  if (turned.size() != static_cast<size_t>(layers)) {
    config.Fail("no_rope_layers", absl::StrCat(turned.size(), " entries"),
                absl::StrCat("num_hidden_layers = ", layers, " entries"));
    turned.resize(layers);
  }
  return turned;
}

ModelDescription Describe(JsonFields& config) {
  ModelDescription model = ReadCommonFields(config, /*tied_where_silent=*/true);
  AttentionDescription attention = ReadHeads(config, model.hidden_size);
  ReadAttentionBias(config, attention);
  attention.rope = ReadHeadRope(config, model, attention.head_dim, {.theta = 2e6});
  DenseFfn ffn = ReadDenseFfn(config);
  ffn.bias = config.BoolOr("mlp_bias", false);
  const int layers = ReadLayerCount(config);
  const std::vector<int64_t> turned = ReadTurnedLayers(config, layers);
  const SlidingLayers sliding =
      ReadOptionalWindow(config, layers, [&](int layer) { return turned[layer] == 0; });
  config.Ignore({"max_window_layers"});  // of Qwen, whose config this one was made from
  AddLayers(sliding, {attention, ffn}, model);
  for (int i = 0; i < layers; ++i) {
    if (turned[i] == 0) model.layers[i].attention.rope = {};
  }
  return model;
}

}  // namespace

const Architecture& SmolLm3Architecture() {
  static const Architecture kArchitecture{.name = "SmolLM3",
                                          .model_type = "smollm3",
                                          .class_name = "SmolLM3ForCausalLM",
                                          .describe = Describe,
                                          .names = {}};
  return kArchitecture;
}

}  // namespace troupe
