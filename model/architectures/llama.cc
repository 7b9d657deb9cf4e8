// Llama 3 and what came before it: dense, full attention, scaled rope.
#include "model/architectures/config_fields.h"
#include "model/architectures/families.h"

namespace troupe {
namespace {

ModelDescription Describe(JsonFields& config) {
  ModelDescription model = ReadCommonFields(config);
  AttentionDescription attention = ReadHeads(config, model.hidden_size);
  attention.rope = ReadHeadRope(config, model, attention.head_dim);
  ReadAttentionBias(config, attention);
  DenseFfn ffn = ReadDenseFfn(config);
  ffn.bias = config.BoolOr("mlp_bias", false);
  model.layers.assign(ReadLayerCount(config), {attention, ffn});
  return model;
}

}  // namespace

const Architecture& LlamaArchitecture() {
  static const Architecture kArchitecture{.name = "Llama",
                                          .model_type = "llama",
                                          .class_name = "LlamaForCausalLM",
                                          .describe = Describe,
                                          .names = {.ignored = {"self_attn.rotary_emb.inv_freq"}}};
  return kArchitecture;
}

}  // namespace troupe
