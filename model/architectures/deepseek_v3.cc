// DeepSeek-V3 and R1: multi-head latent attention, experts in groups with a correction bias, and an
// MTP module.
#include "model/architectures/config_fields.h"
#include "model/architectures/families.h"

namespace troupe {
namespace {

ModelDescription Describe(JsonFields& config) {
  ModelDescription model = ReadCommonFields(config);
  const RopeKind kind =
      config.BoolOr("rope_interleave", true) ? RopeKind::kInterleaved : RopeKind::kHalfSplit;
  const AttentionDescription attention =
      ReadLatentAttention(config, model.max_context_tokens, kind);
  const DenseFfn dense = ReadDenseFfn(config);
  const MoeFfn moe = ReadCorrectedExperts(config);
  ReadDenseThenExperts(config, attention, dense, moe, model);
  return model;
}

}  // namespace

const Architecture& DeepSeekV3Architecture() {
  static const Architecture kArchitecture{
      .name = "DeepSeek-V3",
      .model_type = "deepseek_v3",
      .class_name = "DeepseekV3ForCausalLM",
      .describe = Describe,
      .names = {.ignored = {"embed_tokens.weight", "shared_head.head.weight"}}};
  return kArchitecture;
}

}  // namespace troupe
