// Gemma 3, the text model: norms around the sublayers whose weights are stored less 1, scaled
// embeddings, and sliding layers with a rope of their own.
#include <cmath>

#include "model/architectures/config_fields.h"
#include "model/architectures/families.h"

namespace troupe {
namespace {

ModelDescription Describe(JsonFields& config) {
  ModelDescription model = ReadCommonFields(config, /*tied_where_silent=*/true);
  model.norm_weight_offset = 1.0F;
  model.embedding_scale = std::sqrt(static_cast<float>(model.hidden_size));
  config.Only("attn_logit_softcapping", nullptr);
  config.Only("final_logit_softcapping", nullptr);
  config.Only("use_bidirectional_attention", false);

  AttentionDescription attention = ReadHeads(config, model.hidden_size, 256);
  attention.score_scale =
      static_cast<float>(1.0 / std::sqrt(config.NumberOr("query_pre_attn_scalar", 1e-3, 1e9, 256)));
  attention.qk_norm = QkNorm::kPerHead;
  ReadAttentionBias(config, attention);
  const LayerRopes ropes =
      ReadLayerRopes(config, model.max_context_tokens, 1e6, "rope_local_base_freq", 1e4);
  const DenseFfn ffn{.inner_size = SizeField(config, "intermediate_size"),
                     .activation = ReadActivation(config, "hidden_activation")};

  const int layers = ReadLayerCount(config);
  const int pattern =
      AliasedSizeFieldOr(config, "sliding_window_pattern", "_sliding_window_pattern", 6);
  const SlidingLayers sliding =
      ReadSlidingLayers(config, layers, [&](int layer) { return (layer + 1) % pattern != 0; });
  AddLayers(sliding, {attention, ffn, NormPlace::kBoth}, model);
  ropes.Turn(model);
  return model;
}

}  // namespace

const Architecture& Gemma3TextArchitecture() {
  static const Architecture kArchitecture{
      .name = "Gemma 3",
      .model_type = "gemma3_text",
      .class_name = "Gemma3ForCausalLM",
      .describe = Describe,
      .names = {.ffn_norm = "pre_feedforward_layernorm.weight"}};
  return kArchitecture;
}

}  // namespace troupe
