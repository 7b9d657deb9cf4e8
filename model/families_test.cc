// What each family's config says, in the forms of transformers 4 and 5. The configs are those of
// the golden models.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <variant>
#include <vector>

#include "model/architectures/architecture.h"
#include "model/rope_scaling.h"
#include "model/testing/golden_config.h"

namespace troupe {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kFamilies[] = {
    "deepseek_v2", "deepseek_v3", "gemma3_text", "glm4_moe", "gpt_oss",   "llama",   "minimax_m2",
    "mixtral",     "olmo3",       "qwen2",       "qwen3",    "qwen3_moe", "smollm3",
};

absl::StatusOr<ModelDescription> Describe(const json& config) {
  auto model = DescribeConfig("config.json", config);
  if (!model.ok()) return model.status();
  return std::move(model->description);
}

ModelDescription Described(const json& config) {
  const auto model = Describe(config);
  EXPECT_TRUE(model.ok()) << model.status();
  return model.ok() ? *model : ModelDescription{.layers = {LayerDescription{}}};
}

std::vector<bool> Sliding(const ModelDescription& model) {
  std::vector<bool> sliding;
  for (const LayerDescription& layer : model.layers) {
    sliding.push_back(layer.attention.kind == AttentionKind::kSliding);
  }
  return sliding;
}

class FamilyTest : public ::testing::TestWithParam<const char*> {};

TEST_P(FamilyTest, BothFormsSayTheSame) {
  const auto newer = Describe(GoldenConfig(GetParam()));
  ASSERT_TRUE(newer.ok()) << newer.status();
  const auto older = Describe(GoldenConfig(GetParam(), "config.legacy.json"));
  ASSERT_TRUE(older.ok()) << older.status();
  EXPECT_EQ(*newer, *older);
}

TEST_P(FamilyTest, KeysThatAreNotUnderstoodAreErrors) {
  for (const char* file : {"config.json", "config.legacy.json"}) {
    const json whole = GoldenConfig(GetParam(), file);
    for (const auto& [key, value] : whole.items()) {
      if (value.is_null()) continue;  // as if it were not there
      json config = whole;
      config.erase(key);
      config["x_" + key] = value;
      EXPECT_FALSE(Describe(config).ok()) << key;
    }
    for (const char* rope : {"rope_parameters", "rope_scaling"}) {
      if (!whole.contains(rope) || !whole[rope].is_object()) continue;
      json config = whole;
      config[rope]["mystery"] = 1;
      const auto model = Describe(config);
      EXPECT_THAT(std::string(model.status().message()), HasSubstr(".mystery: found 1")) << rope;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, FamilyTest, ::testing::ValuesIn(kFamilies),
                         [](const auto& info) { return std::string(info.param); });

TEST(LlamaConfigTest, IsUnderstood) {
  const ModelDescription model = Described(GoldenConfig("llama"));
  EXPECT_EQ(model.architecture, "Llama");
  EXPECT_FALSE(model.tied_embeddings);
  ASSERT_EQ(model.layers.size(), 4);
  const AttentionDescription& attention = model.layers[3].attention;
  EXPECT_EQ(attention.kind, AttentionKind::kFull);
  EXPECT_EQ(attention.head_dim, 16);
  EXPECT_FLOAT_EQ(attention.score_scale, 0.25F);
  EXPECT_EQ(attention.qk_norm, QkNorm::kNone);
  EXPECT_EQ(
      attention.rope,
      DescribeRope(RopeKind::kHalfSplit,
                   {.theta = 5e5,
                    .scaling = Llama3RopeScaling{.factor = 8.0, .original_context_tokens = 64}},
                   16));
  EXPECT_EQ(std::get<DenseFfn>(model.layers[0].ffn), (DenseFfn{.inner_size = 96}));
}

TEST(LlamaConfigTest, OldConfigsLeaveMuchOut) {
  json config = GoldenConfig("llama", "config.legacy.json");
  for (const char* key : {"rope_theta", "rope_scaling", "head_dim", "num_key_value_heads",
                          "attention_bias", "mlp_bias"}) {
    config.erase(key);
  }
  const AttentionDescription attention = Described(config).layers[0].attention;
  EXPECT_EQ(attention.kv_heads, attention.heads);
  EXPECT_EQ(attention.head_dim, 8);
  EXPECT_EQ(attention.rope.inverse_frequency, RopeFrequencies(1e4, 8));
}

TEST(LlamaConfigTest, LinearScalingAndBiases) {
  json config = GoldenConfig("llama", "config.legacy.json");
  config["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
  config["attention_bias"] = true;
  config["mlp_bias"] = true;
  const ModelDescription model = Described(config);
  const AttentionDescription& attention = model.layers[0].attention;
  EXPECT_TRUE(attention.qkv_bias);
  EXPECT_TRUE(attention.output_bias);
  EXPECT_TRUE(std::get<DenseFfn>(model.layers[0].ffn).bias);
  EXPECT_FLOAT_EQ(attention.rope.inverse_frequency[0], 0.5F);
}

TEST(QwenConfigTest, Qwen2HasBiasesAndQwen3Norms) {
  const ModelDescription qwen2 = Described(GoldenConfig("qwen2"));
  EXPECT_TRUE(qwen2.tied_embeddings);
  EXPECT_TRUE(qwen2.layers[0].attention.qkv_bias);
  EXPECT_FALSE(qwen2.layers[0].attention.output_bias);
  EXPECT_EQ(qwen2.layers[0].attention.qk_norm, QkNorm::kNone);
  const ModelDescription qwen3 = Described(GoldenConfig("qwen3"));
  EXPECT_FALSE(qwen3.layers[0].attention.qkv_bias);
  EXPECT_EQ(qwen3.layers[0].attention.qk_norm, QkNorm::kPerHead);
  EXPECT_EQ(qwen3.layers[0].attention.head_dim, 32);
}

TEST(QwenConfigTest, UpperLayersSlideOnlyWhereAskedTo) {
  json config = GoldenConfig("qwen2");
  config["sliding_window"] = 24;
  config["max_window_layers"] = 3;
  config.erase("layer_types");
  EXPECT_THAT(Sliding(Described(config)), ElementsAre(false, false, false, false));
  config["use_sliding_window"] = true;
  const ModelDescription model = Described(config);
  EXPECT_THAT(Sliding(model), ElementsAre(false, false, false, true));
  EXPECT_EQ(model.layers[2].attention.window_tokens, 0);
  EXPECT_EQ(model.layers[3].attention.window_tokens, 24);
  config["layer_types"] = {"sliding_attention", "full_attention", "full_attention",
                           "sliding_attention"};
  EXPECT_THAT(Sliding(Described(config)), ElementsAre(true, false, false, true));
}

TEST(Qwen3MoeConfigTest, IsUnderstood) {
  const ModelDescription model = Described(GoldenConfig("qwen3_moe"));
  EXPECT_TRUE(std::holds_alternative<DenseFfn>(model.layers[0].ffn));
  const auto& moe = std::get<MoeFfn>(model.layers[1].ffn);
  EXPECT_EQ(moe.experts, 8);
  EXPECT_EQ(moe.experts_per_token, 4);
  EXPECT_EQ(moe.expert_inner_size, 32);
  EXPECT_EQ(moe.router.scoring, RouterScoring::kSoftmax);
  EXPECT_TRUE(moe.router.normalise_weights);
  json config = GoldenConfig("qwen3_moe");
  config["decoder_sparse_step"] = 2;
  config["mlp_only_layers"] = json::array();
  const ModelDescription every_second = Described(config);
  EXPECT_TRUE(std::holds_alternative<DenseFfn>(every_second.layers[0].ffn));
  EXPECT_TRUE(std::holds_alternative<MoeFfn>(every_second.layers[1].ffn));
  EXPECT_TRUE(std::holds_alternative<DenseFfn>(every_second.layers[2].ffn));
}

TEST(MixtralConfigTest, AllLayersSlideWhereAWindowIsGiven) {
  json config = GoldenConfig("mixtral");
  EXPECT_THAT(Sliding(Described(config)), ElementsAre(true, true, true));
  EXPECT_EQ(Described(config).layers[0].attention.window_tokens, 48);
  EXPECT_EQ(std::get<MoeFfn>(Described(config).layers[0].ffn).expert_inner_size, 64);
  config["sliding_window"] = nullptr;
  EXPECT_THAT(Sliding(Described(config)), ElementsAre(false, false, false));
}

TEST(SmolLm3ConfigTest, SomeLayersKnowNoPositions) {
  json config = GoldenConfig("smollm3");
  const auto turned = [&] {
    std::vector<bool> turned;
    for (const LayerDescription& layer : Described(config).layers) {
      turned.push_back(layer.attention.rope.kind == RopeKind::kHalfSplit);
    }
    return turned;
  };
  EXPECT_THAT(turned(), ElementsAre(true, true, true, false));
  config.erase("no_rope_layers");
  config["no_rope_layer_interval"] = 2;
  EXPECT_THAT(turned(), ElementsAre(true, false, true, false));
  config.erase("tie_word_embeddings");
  EXPECT_TRUE(Described(config).tied_embeddings);
}

TEST(Olmo3ConfigTest, NormsComeAfterAndOnlyFullLayersStretch) {
  const ModelDescription model = Described(GoldenConfig("olmo3"));
  EXPECT_EQ(model.layers[0].norm_place, NormPlace::kAfter);
  EXPECT_EQ(model.layers[0].attention.qk_norm, QkNorm::kFullWidth);
  EXPECT_THAT(Sliding(model), ElementsAre(true, true, true, false));
  EXPECT_EQ(model.layers[0].attention.rope.inverse_frequency, RopeFrequencies(5e5, 8));
  EXPECT_FLOAT_EQ(model.layers[0].attention.rope.amplitude, 1.0F);
  EXPECT_NE(model.layers[3].attention.rope.inverse_frequency, RopeFrequencies(5e5, 8));
  EXPECT_FLOAT_EQ(model.layers[3].attention.rope.amplitude, 1.2079442F);
}

TEST(Gemma3ConfigTest, IsUnderstood) {
  json config = GoldenConfig("gemma3_text");
  config["query_pre_attn_scalar"] = 64;
  const ModelDescription model = Described(config);
  EXPECT_FLOAT_EQ(model.embedding_scale, 8.0F);
  EXPECT_FLOAT_EQ(model.norm_weight_offset, 1.0F);
  EXPECT_EQ(model.layers[0].norm_place, NormPlace::kBoth);
  EXPECT_FLOAT_EQ(model.layers[0].attention.score_scale, 0.125F);
  EXPECT_EQ(std::get<DenseFfn>(model.layers[0].ffn).activation.kind, ActivationKind::kGeluTanh);
  EXPECT_THAT(Sliding(model), ElementsAre(true, true, true, false));
  EXPECT_EQ(model.layers[0].attention.rope.inverse_frequency, RopeFrequencies(1e4, 32));
  EXPECT_EQ(model.layers[3].attention.rope.inverse_frequency, RopeFrequencies(1e6, 32));
}

TEST(Gemma3ConfigTest, PublishedConfigsNameThePattern) {
  json config = GoldenConfig("gemma3_text", "config.legacy.json");
  for (const char* key : {"layer_types", "_sliding_window_pattern", "tie_word_embeddings",
                          "use_bidirectional_attention"}) {
    config.erase(key);
  }
  config["sliding_window_pattern"] = 2;
  config["cache_implementation"] = "hybrid";
  config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 8.0}};
  const ModelDescription model = Described(config);
  EXPECT_TRUE(model.tied_embeddings);
  EXPECT_THAT(Sliding(model), ElementsAre(true, false, true, false));
  EXPECT_FLOAT_EQ(model.layers[0].attention.rope.inverse_frequency[0], 1.0F);
  EXPECT_FLOAT_EQ(model.layers[1].attention.rope.inverse_frequency[0], 0.125F);
}

TEST(Glm4MoeConfigTest, IsUnderstood) {
  json config = GoldenConfig("glm4_moe");
  config["num_nextn_predict_layers"] = 1;
  const ModelDescription model = Described(config);
  const AttentionDescription& attention = model.layers[0].attention;
  EXPECT_EQ(attention.rope.rotated_dims, 16);
  EXPECT_TRUE(attention.qkv_bias);
  EXPECT_FALSE(attention.output_bias);
  EXPECT_EQ(attention.qk_norm, QkNorm::kPerHead);
  const auto& moe = std::get<MoeFfn>(model.layers[1].ffn);
  EXPECT_TRUE(moe.router.correction_bias);
  EXPECT_EQ(moe.router.group_score, GroupScore::kNone);
  EXPECT_FLOAT_EQ(moe.router.weight_scale, 2.5F);
  ASSERT_TRUE(model.mtp.has_value());
  EXPECT_EQ(model.mtp->layer, model.layers.back());
}

TEST(MiniMaxM2ConfigTest, PublishedConfigsSayMore) {
  json config = GoldenConfig("minimax_m2", "config.legacy.json");
  const ModelDescription plain = Described(config);
  EXPECT_EQ(plain.layers[0].attention.qk_norm, QkNorm::kFullWidth);
  EXPECT_EQ(plain.layers[0].attention.rope.rotated_dims, 16);
  config.erase("partial_rotary_factor");
  config.update({{"rotary_dim", 16},
                 {"attn_type_list", {1, 1, 1}},
                 {"qk_norm_type", "per_layer"},
                 {"scoring_func", "sigmoid"},
                 {"use_mtp", true},
                 {"num_mtp_modules", 3},
                 {"layernorm_mlp_beta", 1.0},
                 {"shared_intermediate_size", 0}});
  EXPECT_EQ(Described(config), plain);
}

TEST(GptOssConfigTest, IsUnderstood) {
  json config = GoldenConfig("gpt_oss", "config.legacy.json");
  config["experts_per_token"] = 2;
  config["initial_context_length"] = 4096;
  config["swiglu_limit"] = 5.0;
  const ModelDescription model = Described(config);
  EXPECT_THAT(Sliding(model), ElementsAre(true, false, true, false));
  const AttentionDescription& attention = model.layers[0].attention;
  EXPECT_TRUE(attention.sinks);
  EXPECT_TRUE(attention.qkv_bias);
  EXPECT_TRUE(attention.output_bias);
  EXPECT_FLOAT_EQ(attention.rope.amplitude, 1.3465736F);
  const auto& moe = std::get<MoeFfn>(model.layers[0].ffn);
  EXPECT_TRUE(moe.expert_bias);
  EXPECT_TRUE(moe.router.logit_bias);
  EXPECT_EQ(moe.activation,
            (Activation{.kind = ActivationKind::kClampedSilu, .alpha = 1.702F, .limit = 5.0F}));
}

TEST(DeepSeekConfigTest, V2IsUnderstood) {
  json config = GoldenConfig("deepseek_v2");
  const ModelDescription model = Described(config);
  const AttentionDescription& attention = model.layers[0].attention;
  ASSERT_TRUE(attention.mla.has_value());
  EXPECT_EQ(*attention.mla, (MlaDescription{.query_latent_dim = 0,
                                            .latent_dim = 32,
                                            .nope_dim = 16,
                                            .rope_dim = 16,
                                            .norm_epsilon = 1e-6F}));
  EXPECT_EQ(attention.head_dim, 32);
  EXPECT_EQ(attention.value_dim, 16);
  EXPECT_EQ(attention.rope.kind, RopeKind::kInterleaved);
  EXPECT_FLOAT_EQ(attention.rope.amplitude, 1.0F);
  EXPECT_FLOAT_EQ(attention.score_scale, 1.5896261651F / std::sqrt(32.0F));
  const auto& moe = std::get<MoeFfn>(model.layers[1].ffn);
  EXPECT_EQ(moe.shared_inner_size, 64);
  EXPECT_EQ(moe.router.scoring, RouterScoring::kSoftmax);
  EXPECT_EQ(moe.router.group_score, GroupScore::kMax);
  EXPECT_EQ(moe.router.groups, 4);
  EXPECT_EQ(moe.router.groups_chosen, 2);
  config["topk_method"] = "greedy";
  config["n_group"] = nullptr;
  config["topk_group"] = nullptr;
  EXPECT_EQ(std::get<MoeFfn>(Described(config).layers[1].ffn).router.groups, 1);
}

TEST(DeepSeekConfigTest, V3IsUnderstood) {
  json config = GoldenConfig("deepseek_v3", "config.legacy.json");
  config.update({{"num_nextn_predict_layers", 1},
                 {"ep_size", 1},
                 {"moe_layer_freq", 1},
                 {"scoring_func", "sigmoid"},
                 {"topk_method", "noaux_tc"}});
  config.erase("head_dim");
  config.erase("qk_head_dim");
  const ModelDescription model = Described(config);
  EXPECT_EQ(model.layers[0].attention.mla->query_latent_dim, 64);
  const auto& moe = std::get<MoeFfn>(model.layers[1].ffn);
  EXPECT_EQ(moe.router.group_score, GroupScore::kTopTwoSum);
  EXPECT_TRUE(moe.router.correction_bias);
  EXPECT_TRUE(moe.router.normalise_weights);
  ASSERT_TRUE(model.mtp.has_value());
  EXPECT_TRUE(std::holds_alternative<MoeFfn>(model.mtp->layer.ffn));
  config["rope_interleave"] = false;
  EXPECT_EQ(Described(config).layers[0].attention.rope.kind, RopeKind::kHalfSplit);
}

}  // namespace
}  // namespace troupe
