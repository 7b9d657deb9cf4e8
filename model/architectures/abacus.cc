#include "model/architectures/abacus.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/architectures/config_fields.h"

namespace troupe {
namespace {

// One entry a layer, as three lists of the config give it.
struct LayerKinds {
  std::vector<std::string> types;
  std::vector<int64_t> nsa;
  std::vector<int64_t> rope;  // 1: the layer uses rope
};

LayerKinds ReadLayerKinds(JsonFields& config, int layers) {
  LayerKinds kinds{config.StringList("layer_types"), config.IntList("nsa_layers", 0, 1),
                   config.IntList("no_rope_layers", 0, 1)};
  const auto check = [&](absl::string_view key, size_t found) {
    if (found != static_cast<size_t>(layers)) {
      config.Fail(key, absl::StrCat(found, " entries"),
                  absl::StrCat("num_hidden_layers = ", layers, " entries"));
    }
  };
  check("layer_types", kinds.types.size());
  check("nsa_layers", kinds.nsa.size());
  check("no_rope_layers", kinds.rope.size());
  kinds.types.resize(layers);
  kinds.nsa.resize(layers);
  kinds.rope.resize(layers);
  return kinds;
}

AttentionKind KindOfLayer(JsonFields& config, const LayerKinds& kinds, int layer) {
  const std::string& type = kinds.types[layer];
  const std::string field = absl::StrCat("layer_types[", layer, "]");
  if (type == "sliding_attention") {
    if (kinds.nsa[layer] != 0) {
      config.Fail(absl::StrCat("nsa_layers[", layer, "]"), "1",
                  "0 for a layer of sliding_attention");
    }
    return AttentionKind::kSliding;
  }
  if (type != "full_attention") {
    config.Fail(field, type, "sliding_attention or full_attention");
  }
  return kinds.nsa[layer] != 0 ? AttentionKind::kNsa : AttentionKind::kFull;
}

NsaDescription ReadNsa(JsonFields& config) {
  NsaDescription nsa;
  nsa.compress_block = SizeField(config, "nsa_compress_block_size");
  nsa.compress_stride = SizeField(config, "nsa_compress_stride");
  nsa.select_block = SizeField(config, "nsa_select_block_size");
  nsa.selected_blocks = SizeField(config, "nsa_num_selected_blocks");
  nsa.init_blocks = static_cast<int>(config.Int("nsa_num_init_blocks", 0, kMaxSize));
  nsa.local_blocks = SizeField(config, "nsa_num_local_blocks");
  return nsa;
}

MoeFfn ReadMoe(JsonFields& config) {
  MoeFfn moe;
  moe.experts = SizeField(config, "n_routed_experts");
  moe.experts_per_token = SizeField(config, "num_experts_per_tok");
  moe.expert_inner_size = SizeField(config, "moe_intermediate_size");
  const auto shared = static_cast<int>(config.IntOr("n_shared_experts", 0, 1024, 0));
  moe.shared_inner_size = shared * moe.expert_inner_size;
  moe.router.scoring = RouterScoring::kSigmoid;
  config.Only("scoring_func", "sigmoid");
  // noaux_tc with one group: the correction bias takes part in choosing, groups do not.
  config.Only("topk_method", "noaux_tc");
  config.Only("n_group", 1);
  config.Only("topk_group", 1);
  moe.router.correction_bias = true;
  moe.router.normalise_weights = config.Bool("norm_topk_prob");
  moe.router.weight_scale =
      static_cast<float>(config.NumberOr("routed_scaling_factor", 1e-6, 1e6, 1.0));
  return moe;
}

ModelDescription Describe(JsonFields& config) {
  ModelDescription model = ReadCommonFields(config);
  const int layers = SizeField(config, "num_hidden_layers", kMaxLayers);

  AttentionDescription base;
  ReadHeads(config, model.hidden_size, base);
  config.Only("attention_bias", false);
  base.qk_norm = config.BoolOr("use_qk_norm", false) ? QkNorm::kPerHead : QkNorm::kNone;
  base.window_tokens = SizeField(config, "sliding_window");
  base.head_gate =
      HeadGateDescription{SizeField(config, "head_gate_dim"),
                          static_cast<float>(config.Number("head_gate_threshold", 0.0, 1.0))};
  const RopeDescription rope = ReadRope(config, base.head_dim);
  const NsaDescription nsa = ReadNsa(config);

  const DenseFfn dense{SizeField(config, "intermediate_size")};
  const MoeFfn moe = ReadMoe(config);
  const auto dense_layers = config.IntOr("first_k_dense_replace", 0, layers, 0);

  const LayerKinds kinds = ReadLayerKinds(config, layers);
  for (int i = 0; i < layers; ++i) {
    LayerDescription layer{base, i < dense_layers ? FfnDescription(dense) : FfnDescription(moe)};
    layer.attention.kind = KindOfLayer(config, kinds, i);
    if (kinds.rope[i] != 0) layer.attention.rope = rope;
    if (layer.attention.kind == AttentionKind::kNsa) layer.attention.nsa = nsa;
    model.layers.push_back(std::move(layer));
  }
  for (int64_t layer : config.IntListOr("early_exit_layers", 0, layers - 1, {})) {
    model.early_exit_layers.push_back(static_cast<int>(layer));
  }
  if (config.IntOr("num_nextn_predict_layers", 0, 1, 0) == 1) {
    LayerDescription layer{base, dense};
    layer.attention.kind = AttentionKind::kSliding;
    layer.attention.rope = rope;
    model.mtp = MtpDescription{std::move(layer)};
  }
  return model;
}

}  // namespace

const Architecture& AbacusArchitecture() {
  static const Architecture kArchitecture{.name = "Abacus",
                                          .model_type = "troupe",
                                          .class_name = "TroupeForCausalLM",
                                          .describe = Describe,
                                          .names = {}};
  return kArchitecture;
}

}  // namespace troupe
