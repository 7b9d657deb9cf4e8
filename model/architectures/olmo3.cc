// OLMo 3: norms after the sublayers and over all heads at once; most layers slide, and only the
// full ones stretch their rope.
#include <utility>

#include "model/architectures/config_fields.h"
#include "model/architectures/families.h"

namespace troupe {
namespace {

ModelDescription Describe(JsonFields& config) {
  ModelDescription model = ReadCommonFields(config);
  AttentionDescription attention = ReadHeads(config, model.hidden_size);
  attention.qk_norm = QkNorm::kFullWidth;
  attention.qkv_bias = config.BoolOr("attention_bias", false);
  attention.output_bias = attention.qkv_bias;
  const LayerRopes ropes = ReadLayerRopes(config, model.max_context_tokens, 5e5, "rope_theta", 5e5);
  const DenseFfn ffn = ReadDenseFfn(config);
  const int layers = ReadLayerCount(config);
  const SlidingLayers sliding =
      ReadSlidingLayers(config, layers, [](int layer) { return (layer + 1) % 4 != 0; });
  for (int i = 0; i < layers; ++i) {
    LayerDescription layer{attention, ffn, NormPlace::kAfter};
    sliding.Apply(i, layer.attention);
    layer.attention.rope =
        DescribeRope(RopeKind::kHalfSplit, ropes.Of(sliding.kinds[i]), attention.head_dim);
    model.layers.push_back(std::move(layer));
  }
  return model;
}

}  // namespace

const Architecture& Olmo3Architecture() {
  static const Architecture kArchitecture{.name = "OLMo 3",
                                          .model_type = "olmo3",
                                          .class_name = "Olmo3ForCausalLM",
                                          .describe = Describe,
                                          .names = {}};
  return kArchitecture;
}

}  // namespace troupe
