// Qwen2 and Qwen2.5: dense, with biases on the projections into attention.
#include <utility>

#include "model/architectures/config_fields.h"
#include "model/architectures/families.h"

namespace troupe {
namespace {

ModelDescription Describe(JsonFields& config) {
  ModelDescription model = ReadCommonFields(config);
  AttentionDescription attention = ReadHeads(config, model.hidden_size);
  attention.rope = DescribeRope(RopeKind::kHalfSplit, ReadRope(config, model.max_context_tokens),
                                attention.head_dim);
  attention.qkv_bias = true;
  config.Only("use_mrope", false);
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

const Architecture& Qwen2Architecture() {
  static const Architecture kArchitecture{.name = "Qwen2",
                                          .model_type = "qwen2",
                                          .class_name = "Qwen2ForCausalLM",
                                          .describe = Describe,
                                          .names = {}};
  return kArchitecture;
}

}  // namespace troupe
