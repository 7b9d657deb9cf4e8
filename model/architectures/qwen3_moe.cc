// Qwen3-MoE: Qwen3 with experts chosen by softmax in most or all of its layers.
#include <algorithm>
#include <vector>

#include "model/architectures/config_fields.h"
#include "model/architectures/families.h"

namespace troupe {
namespace {

MoeFfn ReadMoe(JsonFields& config) {
  const int experts = AliasedSizeField(config, "num_experts", "num_local_experts", kMaxExperts);
  MoeFfn moe = ReadExperts(config, experts, "moe_intermediate_size");
  moe.router.scoring = RouterScoring::kSoftmax;
  moe.router.normalise_weights = config.BoolOr("norm_topk_prob", false);
  return moe;
}

ModelDescription Describe(JsonFields& config) {
  ModelDescription model = ReadCommonFields(config);
  AttentionDescription attention = ReadHeads(config, model.hidden_size);
  attention.rope = ReadHeadRope(config, model, attention.head_dim);
  attention.qk_norm = QkNorm::kPerHead;
  ReadAttentionBias(config, attention);

  const DenseFfn dense = ReadDenseFfn(config);
  const MoeFfn moe = ReadMoe(config);
  const int layers = ReadLayerCount(config);
  const int64_t moe_every = config.IntOr("decoder_sparse_step", 1, kMaxLayers, 1);
  const std::vector<int64_t> dense_layers = config.IntListOr("mlp_only_layers", 0, layers - 1, {});
  // Written by some exports; unlike in the dense models it decides nothing here.
  config.Ignore({"max_window_layers"});
  const SlidingLayers sliding =
      ReadOptionalWindow(config, layers, [](int /*layer*/) { return true; });
  AddLayers(sliding, {attention, moe}, model);
  for (int i = 0; i < layers; ++i) {
    const bool named = std::ranges::count(dense_layers, int64_t{i}) > 0;
    if (named || (i + 1) % moe_every != 0) model.layers[i].ffn = dense;
  }
  return model;
}

}  // namespace

const Architecture& Qwen3MoeArchitecture() {
  static const Architecture kArchitecture{.name = "Qwen3-MoE",
                                          .model_type = "qwen3_moe",
                                          .class_name = "Qwen3MoeForCausalLM",
                                          .describe = Describe,
                                          .names = {}};
  return kArchitecture;
}

}  // namespace troupe
