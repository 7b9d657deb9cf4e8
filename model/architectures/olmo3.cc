// OLMo 3: norms after the sublayers and over all heads at once; most layers slide, and only the
// full ones stretch their rope.
#include "model/architectures/config_fields.h"
#include "model/architectures/families.h"

namespace troupe {
namespace {

ModelDescription Describe(JsonFields& config) {
  ModelDescription model = ReadCommonFields(config);
  AttentionDescription attention = ReadHeads(config, model.hidden_size);
  attention.qk_norm = QkNorm::kFullWidth;
  ReadAttentionBias(config, attention);
  const LayerRopes ropes = ReadLayerRopes(config, model.max_context_tokens, 5e5, "rope_theta", 5e5);
  const DenseFfn ffn = ReadDenseFfn(config);
  const int layers = ReadLayerCount(config);
  const SlidingLayers sliding =
      ReadSlidingLayers(config, layers, [](int layer) { return (layer + 1) % 4 != 0; });
  AddLayers(sliding, {attention, ffn, NormPlace::kAfter}, model);
  ropes.Turn(model);
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
