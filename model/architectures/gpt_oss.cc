// gpt-oss: attention sinks, every other layer slides, and experts with biases and a clamped SwiGLU,
// all in one tensor.
#include "model/architectures/config_fields.h"
#include "model/architectures/families.h"

namespace troupe {
namespace {

MoeFfn ReadMoe(JsonFields& config) {
  MoeFfn moe =
      ReadExperts(config, SizeField(config, "num_local_experts", kMaxExperts), "intermediate_size");
  config.Only("experts_per_token", moe.experts_per_token);  // the same by an older name
  moe.expert_bias = true;
  // hidden_act names the sigmoid's factor x only; 1.702 and the clamps are the architecture's.
  config.Only("hidden_act", "silu");
  moe.activation = {.kind = ActivationKind::kClampedSilu,
                    .alpha = 1.702F,
                    .limit = static_cast<float>(config.NumberOr("swiglu_limit", 1e-3, 1e6, 7.0))};
  moe.router.scoring = RouterScoring::kSoftmax;
  moe.router.logit_bias = true;
  moe.router.normalise_weights = true;
  return moe;
}

ModelDescription Describe(JsonFields& config) {
  ModelDescription model = ReadCommonFields(config);
  AttentionDescription attention = ReadHeads(config, model.hidden_size, 64);
  ReadAttentionBias(config, attention, /*where_silent=*/true);
  attention.sinks = true;
  attention.rope = ReadHeadRope(config, model, attention.head_dim, {.theta = 1.5e5});
  config.Ignore({"initial_context_length"});  // rope_scaling says it too
  const MoeFfn moe = ReadMoe(config);
  const int layers = ReadLayerCount(config);
  const SlidingLayers sliding =
      ReadSlidingLayers(config, layers, [](int layer) { return layer % 2 == 0; });
  AddLayers(sliding, {attention, moe}, model);
  return model;
}

}  // namespace

const Architecture& GptOssArchitecture() {
  static const Architecture kArchitecture{.name = "gpt-oss",
                                          .model_type = "gpt_oss",
                                          .class_name = "GptOssForCausalLM",
                                          .describe = Describe,
                                          .names = {.router = "router.weight",
                                                    .fused_gate_up = "experts.gate_up_proj",
                                                    .fused_down = "experts.down_proj"}};
  return kArchitecture;
}

}  // namespace troupe
