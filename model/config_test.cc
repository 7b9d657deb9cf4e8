#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <string>
#include <variant>

#include "model/architectures/architecture.h"
#include "model/json_reader.h"

namespace troupe {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

json AbacusConfig() {
  const char* root = std::getenv("TROUPE_SOURCE_DIR");
  const auto config =
      ReadJsonFile(std::string(root != nullptr ? root : ".") + "/models/abacus/config.json");
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? *config : json::object();
}

absl::StatusOr<ModelDescription> Describe(const json& config) {
  auto model = DescribeConfig("config.json", config);
  if (!model.ok()) return model.status();
  return std::move(model->description);
}

TEST(AbacusConfigTest, IsUnderstood) {
  const auto model = Describe(AbacusConfig());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->architecture, "Abacus");
  EXPECT_EQ(model->vocab_size, 512);
  EXPECT_EQ(model->hidden_size, 256);
  EXPECT_FLOAT_EQ(model->rms_epsilon, 1e-6f);
  EXPECT_FALSE(model->tied_embeddings);
  EXPECT_EQ(model->max_context_tokens, 65536);
  EXPECT_THAT(model->end_tokens, ElementsAre(2));
  EXPECT_EQ(model->bos_token, 1);
  EXPECT_EQ(model->pad_token, 0);
  EXPECT_THAT(model->early_exit_layers, ElementsAre(3, 5));
  ASSERT_EQ(model->layers.size(), 8);

  const AttentionDescription& sliding = model->layers[0].attention;
  EXPECT_EQ(sliding.kind, AttentionKind::kSliding);
  EXPECT_EQ(sliding.heads, 8);
  EXPECT_EQ(sliding.kv_heads, 2);
  EXPECT_EQ(sliding.head_dim, 64);
  EXPECT_EQ(sliding.window_tokens, 256);
  EXPECT_EQ(sliding.rope.kind, RopeKind::kHalfSplit);
  ASSERT_EQ(sliding.rope.inverse_frequency.size(), 32U);
  EXPECT_FLOAT_EQ(sliding.rope.inverse_frequency[16], 0.01F);
  EXPECT_EQ(sliding.qk_norm, QkNorm::kPerHead);
  ASSERT_TRUE(sliding.head_gate.has_value());
  EXPECT_EQ(sliding.head_gate->inner_size, 64);
  EXPECT_FLOAT_EQ(sliding.head_gate->threshold, 0.3f);
  EXPECT_FALSE(sliding.nsa.has_value());

  const AttentionDescription& sparse = model->layers[4].attention;
  EXPECT_EQ(sparse.kind, AttentionKind::kNsa);
  EXPECT_EQ(sparse.rope.kind, RopeKind::kNone);
  ASSERT_TRUE(sparse.nsa.has_value());
  EXPECT_EQ(sparse.nsa->compress_block, 32);
  EXPECT_EQ(sparse.nsa->selected_blocks, 8);

  EXPECT_EQ(std::get<DenseFfn>(model->layers[0].ffn).inner_size, 768);
  const auto& moe = std::get<MoeFfn>(model->layers[1].ffn);
  EXPECT_EQ(moe.experts, 16);
  EXPECT_EQ(moe.experts_per_token, 2);
  EXPECT_EQ(moe.expert_inner_size, 64);
  EXPECT_EQ(moe.shared_inner_size, 64);
  EXPECT_TRUE(moe.router.correction_bias);
  EXPECT_TRUE(moe.router.normalise_weights);
  ASSERT_TRUE(model->mtp.has_value());
  EXPECT_EQ(model->mtp->layer.attention.kind, AttentionKind::kSliding);
  EXPECT_TRUE(std::holds_alternative<DenseFfn>(model->mtp->layer.ffn));
}

TEST(AbacusConfigTest, TakesTheSpellingsOfTransformers5) {
  json config = AbacusConfig();
  config.erase("rope_theta");
  config.erase("torch_dtype");
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5000.0}};
  config["dtype"] = "bfloat16";
  config["eos_token_id"] = {2, 3};
  const auto model = Describe(config);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_FLOAT_EQ(model->layers[0].attention.rope.inverse_frequency.at(1),
                  static_cast<float>(std::pow(5000.0, -1.0 / 32)));
  EXPECT_THAT(model->end_tokens, ElementsAre(2, 3));
}

TEST(AbacusConfigTest, IsFoundByItsClassAlone) {
  json config = AbacusConfig();
  config.erase("model_type");
  EXPECT_TRUE(Describe(config).ok());
}

TEST(AbacusConfigTest, UnknownFamiliesAreUnimplemented) {
  for (const json& change :
       {json{{"model_type", "mystery"}}, json{{"architectures", {"MysteryForCausalLM"}}}}) {
    json config = AbacusConfig();
    config.update(change);
    const auto model = Describe(config);
    EXPECT_EQ(model.status().code(), absl::StatusCode::kUnimplemented) << change;
    EXPECT_THAT(std::string(model.status().message()),
                AllOf(HasSubstr("config.json: model_type"),
                      HasSubstr("wanted one of troupe (TroupeForCausalLM), deepseek_v2")));
  }
}

struct BadField {
  const char* key;
  json value;
  const char* wanted;
};

TEST(AbacusConfigTest, WrongValuesFailByName) {
  const BadField cases[] = {
      {"vocab_size", 0, "an integer from 1"},
      {"vocab_size", "512", "an integer"},
      {"vocab_size", 512.0, "an integer"},
      {"vocab_size", -1, "an integer"},
      {"vocab_size", 18446744073709551615ull, "an integer"},
      {"hidden_size", json::array(), "an integer"},
      {"num_hidden_layers", 9, "num_hidden_layers = 9 entries"},
      {"num_hidden_layers", 1000000, "an integer"},
      {"num_attention_heads", 7, "a divisor of the 7 heads"},
      {"hidden_act", "gelu", "silu or gelu_pytorch_tanh"},
      {"attention_bias", true, "the only one supported"},
      {"use_qk_norm", 1, "true or false"},
      {"rms_norm_eps", 0, "a number"},
      {"rms_norm_eps", "1e-6", "a number"},
      {"rope_theta", 0.5, "a number"},
      {"rope_scaling", {{"rope_type", "dynamic"}}, "default, linear, llama3 or yarn"},
      {"layer_types", "full_attention", "a list of strings"},
      {"layer_types", json::array({"full_attention"}), "8 entries"},
      {"layer_types", json::array({1, 2, 3, 4, 5, 6, 7, 8}), "a string"},
      {"nsa_layers", json::array({1, 0, 0, 0, 1, 1, 1, 1}), "0 for a layer of sliding_attention"},
      {"nsa_layers", json::array({2, 0, 0, 0, 1, 1, 1, 1}), "an integer from 0 to 1"},
      {"no_rope_layers", json::array({1}), "8 entries"},
      {"sliding_window", nullptr, "the key is required"},
      {"nsa_compress_stride", 24, "a divisor of 64"},
      {"nsa_select_block_size", 32, "64"},
      {"head_gate_threshold", 1.5, "a number from 0 to 1"},
      {"num_experts_per_tok", 17, "1 to 16"},
      {"scoring_func", "softmax", "the only one supported"},
      {"topk_method", "greedy", "the only one supported"},
      {"n_group", 3, "a divisor of the 16 experts"},
      {"first_k_dense_replace", 9, "an integer from 0 to 8"},
      {"early_exit_layers", json::array({3, 8}), "an integer from 0 to 7"},
      {"early_exit_layers", json::array({5, 3}), "ascending"},
      {"num_nextn_predict_layers", 2, "an integer from 0 to 1"},
      {"tie_word_embeddings", "no", "true or false"},
      {"eos_token_id", 512, "an integer from 0 to 511"},
      {"eos_token_id", json::array({2, "x"}), "an integer"},
      {"model_type", 7, "a string"},
      {"attn_logit_softcapping", 30.0, "no such key"},
      {"quantization_config", {{"quant_method", "gptq"}}, "the key is required"},
  };
  for (const BadField& test : cases) {
    SCOPED_TRACE(std::string(test.key) + " = " + test.value.dump());
    json config = AbacusConfig();
    config[test.key] = test.value;
    const auto model = Describe(config);
    ASSERT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument) << model.status();
    EXPECT_THAT(std::string(model.status().message()),
                AllOf(HasSubstr("config.json: "), HasSubstr(": found "), HasSubstr(test.wanted)));
  }
}

TEST(AbacusConfigTest, EveryKeyCounts) {
  const json whole = AbacusConfig();
  for (const auto& [key, value] : whole.items()) {
    json config = whole;
    config.erase(key);
    const auto model = Describe(config);
    if (!model.ok()) {
      EXPECT_THAT(std::string(model.status().message()), HasSubstr("config.json: ")) << key;
    }
    // Misspelt, it is not understood.
    config["x_" + key] = value;
    EXPECT_FALSE(Describe(config).ok()) << key;
  }
}

TEST(ParseJsonTest, IsStrict) {
  EXPECT_TRUE(ParseJson("f", R"({"a":[1,2.5,null,true,"x"]})").ok());
  for (const char* bad : {"", "{", "{}{}", R"({"a":1,"a":2})", R"({"a":{"b":1,"b":1}})", "[1,]",
                          "nan", "'a'", R"("\ud800")"}) {
    EXPECT_EQ(ParseJson("f", bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  EXPECT_FALSE(ParseJson("f", std::string(1'000'000, '[')).ok());
}

}  // namespace
}  // namespace troupe
