// GLM-4.5: DeepSeek-V3's experts behind grouped attention that turns a part of each head.
#include "model/architectures/config_fields.h"
#include "model/architectures/families.h"

namespace troupe {
namespace {

ModelDescription Describe(JsonFields& config) {
  ModelDescription model = ReadCommonFields(config);
  AttentionDescription attention = ReadHeads(config, model.hidden_size);
  attention.qkv_bias = config.BoolOr("attention_bias", false);
  attention.qk_norm = config.BoolOr("use_qk_norm", false) ? QkNorm::kPerHead : QkNorm::kNone;
  attention.rope =
      ReadHeadRope(config, model, attention.head_dim, {.partial = true, .rotated_part = 0.5});
  const DenseFfn dense = ReadDenseFfn(config);
  const MoeFfn moe = ReadCorrectedExperts(config);
  ReadDenseThenExperts(config, attention, dense, moe, model);
  return model;
}

}  // namespace

const Architecture& Glm4MoeArchitecture() {
  static const Architecture kArchitecture{
      .name = "GLM-4.5",
      .model_type = "glm4_moe",
      .class_name = "Glm4MoeForCausalLM",
      .describe = Describe,
      .names = {.ignored = {"embed_tokens.weight", "shared_head.head.weight"}}};
  return kArchitecture;
}

}  // namespace troupe
