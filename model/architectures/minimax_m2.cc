// MiniMax-M2: experts with a correction bias in every layer, norms over all heads at once, and rope
// on a part of each head.
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/architectures/config_fields.h"
#include "model/architectures/families.h"

namespace troupe {
namespace {

// rotary_dim, of published configs, and partial_rotary_factor say the same.
RopeDescription ReadPartialRope(JsonFields& config, const ModelDescription& model, int head_dim) {
  RopeDefaults defaults{.theta = 5e6, .partial = true, .rotated_part = 1.0};
  const auto rotated = static_cast<int>(config.IntOr("rotary_dim", 1, head_dim, head_dim));
  // The half keeps the product with head_dim, which is rounded down, from falling short.
  if (config.Has("rotary_dim")) defaults.rotated_part = (rotated + 0.5) / head_dim;
  RopeDescription rope = ReadHeadRope(config, model, head_dim, defaults);
  if (config.Has("rotary_dim") && rope.rotated_dims != rotated) {
    config.Fail("rotary_dim", absl::StrCat(rotated), "what partial_rotary_factor says");
  }
  return rope;
}

// Keys of the published config that its architecture has one value for, or that describe parts
// that its checkpoints leave out.
void CheckFixedFields(JsonFields& config, int layers) {
  config.Only("attn_type_list", std::vector<int>(layers, 1));
  config.Only("qk_norm_type", "per_layer");
  config.Only("use_qk_norm", true);
  config.Only("use_routing_bias", true);
  config.Only("scoring_func", "sigmoid");
  config.Only("shared_intermediate_size", 0);
  config.Only("sliding_window", nullptr);
  for (const char* key :
       {"layernorm_full_attention_beta", "layernorm_linear_attention_beta", "layernorm_mlp_beta"}) {
    config.Only(key, 1.0);
  }
  config.Ignore({"mlp_intermediate_size", "shared_moe_mode", "use_mtp", "num_mtp_modules",
                 "mtp_transformer_layers"});
}

ModelDescription Describe(JsonFields& config) {
  ModelDescription model = ReadCommonFields(config);
  AttentionDescription attention = ReadHeads(config, model.hidden_size, 128);
  attention.qk_norm = QkNorm::kFullWidth;
  attention.rope = ReadPartialRope(config, model, attention.head_dim);
  MoeFfn moe =
      ReadExperts(config, SizeField(config, "num_local_experts", kMaxExperts), "intermediate_size");
  moe.router.scoring = RouterScoring::kSigmoid;
  moe.router.correction_bias = true;
  moe.router.normalise_weights = true;
  const int layers = ReadLayerCount(config);
  CheckFixedFields(config, layers);
  model.layers.assign(layers, {attention, moe});
  return model;
}

}  // namespace

const Architecture& MiniMaxM2Architecture() {
  static const Architecture kArchitecture{.name = "MiniMax-M2",
                                          .model_type = "minimax_m2",
                                          .class_name = "MiniMaxM2ForCausalLM",
                                          .describe = Describe,
                                          .names = {.ffn = "block_sparse_moe.",
                                                    .ffn_gate = "w1.weight",
                                                    .ffn_up = "w3.weight",
                                                    .ffn_down = "w2.weight",
                                                    .correction_bias = "e_score_correction_bias"}};
  return kArchitecture;
}

}  // namespace troupe
