// Mixtral: experts chosen by softmax in every layer; where a window is given, all layers slide.
#include "model/architectures/config_fields.h"
#include "model/architectures/families.h"

namespace troupe {
namespace {

ModelDescription Describe(JsonFields& config) {
  ModelDescription model = ReadCommonFields(config);
  AttentionDescription attention = ReadHeads(config, model.hidden_size);
  attention.rope = ReadHeadRope(config, model, attention.head_dim, {.theta = 1e6});
  MoeFfn moe =
      ReadExperts(config, SizeField(config, "num_local_experts", kMaxExperts), "intermediate_size");
  moe.router.scoring = RouterScoring::kSoftmax;
  moe.router.normalise_weights = true;
  const int layers = ReadLayerCount(config);
  const bool windowed = config.Has("sliding_window");
  const SlidingLayers sliding =
      ReadSlidingLayers(config, layers, [&](int /*layer*/) { return windowed; });
  AddLayers(sliding, {attention, moe}, model);
  return model;
}

}  // namespace

const Architecture& MixtralArchitecture() {
  static const Architecture kArchitecture{.name = "Mixtral",
                                          .model_type = "mixtral",
                                          .class_name = "MixtralForCausalLM",
                                          .describe = Describe,
                                          .names = {.ffn = "block_sparse_moe.",
                                                    .ffn_gate = "w1.weight",
                                                    .ffn_up = "w3.weight",
                                                    .ffn_down = "w2.weight"}};
  return kArchitecture;
}

}  // namespace troupe
