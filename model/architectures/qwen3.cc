// Qwen3: dense, with norms of queries and keys.
#include "model/architectures/config_fields.h"
#include "model/architectures/families.h"

namespace troupe {
namespace {

ModelDescription Describe(JsonFields& config) {
  ModelDescription model = ReadCommonFields(config);
  AttentionDescription attention = ReadHeads(config, model.hidden_size, 128);
  attention.rope = ReadHeadRope(config, model, attention.head_dim);
  attention.qk_norm = QkNorm::kPerHead;
  ReadAttentionBias(config, attention);
  const DenseFfn ffn = ReadDenseFfn(config);
  const int layers = ReadLayerCount(config);
  const SlidingLayers sliding = ReadUpperWindow(config, layers);
  AddLayers(sliding, {attention, ffn}, model);
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
