// The part of config_fields.h that reads experts.
#include "absl/strings/str_cat.h"
#include "model/architectures/config_fields.h"

namespace troupe {

int AliasedSizeFieldOr(JsonFields& config, absl::string_view key, absl::string_view alias,
                       int otherwise, int64_t max) {
  const int64_t size = config.IntOr(key, 1, max, config.IntOr(alias, 1, max, otherwise));
  if (config.Has(alias) && config.IntOr(alias, 1, max, size) != size) {
    config.Fail(alias, absl::StrCat(config.IntOr(alias, 1, max, size)),
                absl::StrCat("as much as ", key, " = ", size));
  }
  return static_cast<int>(size);
}

int AliasedSizeField(JsonFields& config, absl::string_view key, absl::string_view alias,
                     int64_t max) {
  if (!config.Has(key) && !config.Has(alias)) return SizeField(config, key, max);
  return AliasedSizeFieldOr(config, key, alias, 1, max);
}

MoeFfn ReadExperts(JsonFields& config, int experts, absl::string_view inner_size_key) {
  return {.experts = experts,
          .experts_per_token = SizeField(config, "num_experts_per_tok", kMaxExperts),
          .expert_inner_size = SizeField(config, inner_size_key),
          .activation = ReadActivation(config)};
}

MoeFfn ReadGroupedExperts(JsonFields& config, GroupScore group_score) {
  const int experts =
      AliasedSizeField(config, "n_routed_experts", "num_local_experts", kMaxExperts);
  MoeFfn moe = ReadExperts(config, experts, "moe_intermediate_size");
  const auto shared = static_cast<int>(config.IntOr("n_shared_experts", 0, 1024, 0));
  moe.shared_inner_size = shared * moe.expert_inner_size;
  moe.router.groups = static_cast<int>(config.IntOr("n_group", 1, kMaxExperts, 1));
  moe.router.groups_chosen = static_cast<int>(config.IntOr("topk_group", 1, kMaxExperts, 1));
  moe.router.group_score = moe.router.groups > 1 ? group_score : GroupScore::kNone;
  moe.router.normalise_weights = config.BoolOr("norm_topk_prob", false);
  moe.router.weight_scale =
      static_cast<float>(config.NumberOr("routed_scaling_factor", 1e-6, 1e6, 1.0));
  return moe;
}

MoeFfn ReadCorrectedExperts(JsonFields& config) {
  MoeFfn moe = ReadGroupedExperts(config, GroupScore::kTopTwoSum);
  config.Only("scoring_func", "sigmoid");
  config.Only("topk_method", "noaux_tc");
  moe.router.scoring = RouterScoring::kSigmoid;
  moe.router.correction_bias = true;
  return moe;
}

void ReadDenseThenExperts(JsonFields& config, const AttentionDescription& attention,
                          const DenseFfn& dense, const MoeFfn& moe, ModelDescription& model) {
  const int layers = ReadLayerCount(config);
  const int64_t dense_layers = config.IntOr("first_k_dense_replace", 0, kMaxLayers, 0);
  config.Only("moe_layer_freq", 1);
  const auto layer = [&](int index) {
    return LayerDescription{attention,
                            index < dense_layers ? FfnDescription(dense) : FfnDescription(moe)};
  };
  for (int i = 0; i < layers; ++i) model.layers.push_back(layer(i));
  if (config.IntOr("num_nextn_predict_layers", 0, 1, 0) == 1) {
    model.mtp = MtpDescription{layer(layers)};
  }
}

}  // namespace troupe
