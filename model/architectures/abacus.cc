// Abacus, the bundled model (models/abacus/MODEL.md): NSA and sliding layers with head gates,
// experts with a shared one, early exits and an MTP module.
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/architectures/config_fields.h"
#include "model/architectures/families.h"

namespace troupe {
namespace {

// A required list of zeros and ones, one a layer.
std::vector<int64_t> LayerFlags(JsonFields& config, absl::string_view key, int layers) {
  std::vector<int64_t> flags = config.IntList(key, 0, 1);
  if (flags.size() != static_cast<size_t>(layers)) {
    config.Fail(key, absl::StrCat(flags.size(), " entries"),
                absl::StrCat("num_hidden_layers = ", layers, " entries"));
  }
  flags.resize(layers);
  return flags;
}

// As the model's own code computes them, in f32: theta to a negative power, where others divide by
// a positive one. Angles are products with positions that are rounded to f32, so that after some
// thousand tokens a last bit shows.
std::vector<float> Frequencies(double theta, int rotated_dims) {
  std::vector<float> frequencies;
  for (int j = 0; j < rotated_dims / 2; ++j) {
    const float exponent = -static_cast<float>(2 * j) / static_cast<float>(rotated_dims);
    frequencies.push_back(std::pow(static_cast<float>(theta), exponent));
  }
  return frequencies;
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

ModelDescription Describe(JsonFields& config) {
  ModelDescription model = ReadCommonFields(config);
  const int layers = ReadLayerCount(config);

  AttentionDescription base = ReadHeads(config, model.hidden_size);
  config.Only("attention_bias", false);
  base.qk_norm = config.BoolOr("use_qk_norm", false) ? QkNorm::kPerHead : QkNorm::kNone;
  base.window_tokens = SizeField(config, "sliding_window");
  base.head_gate =
      HeadGateDescription{SizeField(config, "head_gate_dim"),
                          static_cast<float>(config.Number("head_gate_threshold", 0.0, 1.0))};
  const RopeParameters rope_parameters = ReadRope(config, model.max_context_tokens);
  RopeDescription rope = DescribeRope(RopeKind::kHalfSplit, rope_parameters, base.head_dim);
  rope.inverse_frequency = Frequencies(rope_parameters.theta, rope.rotated_dims);
  const NsaDescription nsa = ReadNsa(config);

  const DenseFfn dense = ReadDenseFfn(config);
  const MoeFfn moe = ReadCorrectedExperts(config);
  const auto dense_layers = config.IntOr("first_k_dense_replace", 0, layers, 0);

  const std::vector<AttentionKind> kinds = ReadLayerTypes(config, layers, /*slides=*/nullptr);
  const std::vector<int64_t> sparse = LayerFlags(config, "nsa_layers", layers);
  const std::vector<int64_t> turned = LayerFlags(config, "no_rope_layers", layers);
  for (int i = 0; i < layers; ++i) {
    LayerDescription layer{base, i < dense_layers ? FfnDescription(dense) : FfnDescription(moe)};
    layer.attention.kind = kinds[i];
    if (turned[i] != 0) layer.attention.rope = rope;
    if (sparse[i] != 0) {
      if (kinds[i] == AttentionKind::kSliding) {
        config.Fail(absl::StrCat("nsa_layers[", i, "]"), "1", "0 for a layer of sliding_attention");
      }
      layer.attention.kind = AttentionKind::kNsa;
      layer.attention.nsa = nsa;
    }
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
