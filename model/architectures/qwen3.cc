// Qwen3: dense, with norms of queries and keys.
#include <utility>

#include "model/architectures/config_fields.h"
#include "model/architectures/families.h"

namespace troupe {
namespace {

ModelDescription Describe(JsonFields& config) {
  ModelDescription model = ReadCommonFields(config);
  AttentionDescription attention = ReadHeads(config, model.hidden_size, 128);
  attention.rope = DescribeRope(RopeKind::kHalfSplit, ReadRope(config, model.max_context_tokens),
                                attention.head_dim);
  attention.qk_norm = QkNorm::kPerHead;
  attention.qkv_bias = config.BoolOr("attention_bias", false);
  attention.output_bias = attention.qkv_bias;
  const DenseFfn ffn = ReadDenseFfn(config);
  const int layers = ReadLayerCount(config);
  const SlidingLayers sliding = ReadUpperWindow(config, layers);
  for (int i = 0; i < layers; ++i) {
    LayerDescription layer{attention, ffn};
    sliding.Apply(i, layer.attention);
    model.layers.push_back(std::move(layer));
  }
  return model;
}

}  // namespace

const Architecture& Qwen3Architecture() {
  static const Architecture kArchitecture{.name = "Qwen3",
                                          .model_type = "qwen3",
                                          .class_name = "Qwen3ForCausalLM",
                                          .describe = Describe,
                                          .names = {}};
  return kArchitecture;
}

}  // namespace troupe
