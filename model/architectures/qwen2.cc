// Qwen2 and Qwen2.5: dense, with biases on the projections into attention.
#include "model/architectures/config_fields.h"
#include "model/architectures/families.h"

namespace troupe {
namespace {

ModelDescription Describe(JsonFields& config) {
  ModelDescription model = ReadCommonFields(config);
  AttentionDescription attention = ReadHeads(config, model.hidden_size);
  attention.rope = ReadHeadRope(config, model, attention.head_dim);
  attention.qkv_bias = true;
  config.Only("use_mrope", false);
  const DenseFfn ffn = ReadDenseFfn(config);
  const int layers = ReadLayerCount(config);
  const SlidingLayers sliding = ReadUpperWindow(config, layers);
  AddLayers(sliding, {attention, ffn}, model);
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
