// DeepSeek-V2: multi-head latent attention, and experts whose groups are limited by their best one.
#include <string>

#include "model/architectures/config_fields.h"
#include "model/architectures/families.h"

namespace troupe {
namespace {

MoeFfn ReadMoe(JsonFields& config) {
  const std::string method = config.StringOr("topk_method", "greedy");
  if (method != "greedy" && method != "group_limited_greedy") {
    config.Fail("topk_method", method, "greedy or group_limited_greedy");
  }
  config.Only("scoring_func", "softmax");
  // Published implementations disagree about what it does here.
  config.Only("norm_topk_prob", false);
  MoeFfn moe = ReadGroupedExperts(config, GroupScore::kMax);
  moe.router.scoring = RouterScoring::kSoftmax;
  if (method == "greedy") {
    moe.router.group_score = GroupScore::kNone;
    moe.router.groups = 1;
    moe.router.groups_chosen = 1;
  }
  return moe;
}

ModelDescription Describe(JsonFields& config) {
  ModelDescription model = ReadCommonFields(config);
  const AttentionDescription attention =
      ReadLatentAttention(config, model.max_context_tokens, RopeKind::kInterleaved);
  config.Only("mlp_bias", false);
  const DenseFfn dense = ReadDenseFfn(config);
  const MoeFfn moe = ReadMoe(config);
  ReadDenseThenExperts(config, attention, dense, moe, model);
  return model;
}

}  // namespace

const Architecture& DeepSeekV2Architecture() {
  static const Architecture kArchitecture{.name = "DeepSeek-V2",
                                          .model_type = "deepseek_v2",
                                          .class_name = "DeepseekV2ForCausalLM",
                                          .describe = Describe,
                                          .names = {}};
  return kArchitecture;
}

}  // namespace troupe
