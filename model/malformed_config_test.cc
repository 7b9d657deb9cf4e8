// What is wrong with a config is told as file, field, found and wanted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/architectures/architecture.h"
#include "model/testing/golden_config.h"

namespace troupe {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

struct BadConfig {
  const char* family;
  json patch;  // merged into the config; null takes a key away
  const char* field;
  const char* found;
  const char* wanted;
};

std::vector<BadConfig> BadSizes() {
  const json nothing = nullptr;
  return {
      {"llama", {{"vocab_size", nothing}}, "vocab_size", "nothing", "the key is required"},
      {"llama", {{"hidden_size", "64"}}, "hidden_size", "\"64\"", "an integer from 1 to"},
      {"llama", {{"hidden_size", 64.5}}, "hidden_size", "64.5", "an integer from 1 to"},
      {"llama", {{"num_hidden_layers", 0}}, "num_hidden_layers", "0", "an integer from 1 to 1024"},
      {"llama", {{"head_dim", 100000}}, "head_dim", "100000", "an integer from 1 to 4096"},
      {"llama",
       {{"head_dim", nothing}, {"num_attention_heads", 7}},
       "head_dim",
       "nothing",
       "7 heads do not divide hidden_size = 64"},
      {"llama", {{"num_key_value_heads", 3}}, "kv_heads", "3", "a divisor of the 8 heads"},
      {"llama", {{"head_dim", 15}}, "rope.rotated_dims", "15", "an even number up to 15"},
      {"llama", {{"rms_norm_eps", 0}}, "rms_norm_eps", "0", "a number from 1e-12 to 1"},
      {"llama", {{"hidden_act", "relu"}}, "hidden_act", "relu", "silu or gelu_pytorch_tanh"},
      {"llama", {{"eos_token_id", 320}}, "eos_token_id", "320", "an integer from 0 to 319"},
      {"llama", {{"tie_word_embeddings", 1}}, "tie_word_embeddings", "1", "true or false"},
      {"llama", {{"attention_bias", "yes"}}, "attention_bias", "\"yes\"", "true or false"},
      {"llama", {{"sliding_window", 12}}, "sliding_window", "12", "no such key"},
  };
}

std::vector<BadConfig> BadRopes() {
  const json nothing = nullptr;
  const auto rope = [](json patch) { return json{{"rope_parameters", std::move(patch)}}; };
  return {
      {"llama", rope({{"rope_type", "dynamic"}}), "rope_parameters.rope_type", "dynamic",
       "default, linear, llama3 or yarn"},
      {"qwen3", rope({{"rope_type", "longrope"}}), "rope_parameters.rope_type", "longrope",
       "default, linear, llama3 or yarn"},
      {"qwen3",
       {{"rope_parameters", nothing}, {"rope_scaling", {{"type", "su"}, {"factor", 2}}}},
       "rope_scaling.type",
       "su",
       "default, linear, llama3 or yarn"},
      {"qwen3",
       {{"rope_scaling", {{"type", "linear"}, {"factor", 2}}}},
       "rope_scaling",
       "{\"factor\":2,\"type\":\"linear\"}",
       "nothing beside rope_parameters"},
      {"qwen3", rope({{"type", "yarn"}}), "rope_parameters.type", "yarn", "what rope_type says"},
      {"llama", rope({{"factor", nothing}}), "rope_parameters.factor", "nothing", "required"},
      {"llama", rope({{"factor", 0.5}}), "rope_parameters.factor", "0.5", "a number from 1 to"},
      {"llama", rope({{"high_freq_factor", 1.0}}), "rope_parameters.high_freq_factor", "1",
       "more than low_freq_factor = 1"},
      {"llama", rope({{"beta_fast", 32}}), "rope_parameters.beta_fast", "32", "no such key"},
      {"llama", {{"rope_parameters", 7}}, "rope_parameters", "7", "an object"},
      {"llama",
       {{"rope_theta", 10000.0}},
       "rope_parameters.rope_theta",
       "500000",
       "10000, as outside of this object"},
      {"gpt_oss", rope({{"beta_fast", 0.5}}), "rope_parameters.beta_fast", "0.5",
       "at least beta_slow = 1"},
      {"gpt_oss", rope({{"truncate", "no"}}), "rope_parameters.truncate", "\"no\"",
       "true or false"},
      {"olmo3", rope({{"sliding_attention", nothing}}), "rope_parameters.sliding_attention",
       "nothing", "the rope of these layers"},
      {"olmo3", rope({{"full_attention", {{"attention_factor", -1}}}}),
       "rope_parameters.full_attention.attention_factor", "-1", "a number from 0.001"},
      {"gemma3_text", rope({{"full_attention", {{"rope_type", "dynamic"}}}}),
       "rope_parameters.full_attention.rope_type", "dynamic", "default, linear, llama3 or yarn"},
      {"qwen3", {{"partial_rotary_factor", 0.5}}, "partial_rotary_factor", "0.5", "1.0"},
      {"glm4_moe",
       {{"partial_rotary_factor", 0.25}},
       "rope_parameters.partial_rotary_factor",
       "0.5",
       "0.25, as outside of this object"},
      {"minimax_m2", {{"rotary_dim", 12}}, "rotary_dim", "12", "what partial_rotary_factor says"},
  };
}

std::vector<BadConfig> BadLayers() {
  const json nothing = nullptr;
  return {
      {"qwen2",
       {{"layer_types", {"full_attention"}}},
       "layer_types",
       "1 entries",
       "num_hidden_layers = 4 entries"},
      {"gpt_oss",
       {{"layer_types", {"full_attention", "linear_attention", "full_attention", "mamba"}}},
       "layer_types[1]",
       "linear_attention",
       "sliding_attention or full_attention"},
      {"gpt_oss",
       {{"sliding_window", nothing}},
       "sliding_window",
       "nothing",
       "the tokens that a sliding_attention layer sees"},
      {"qwen3",
       {{"layer_types", std::vector<std::string>(4, "sliding_attention")}, {"sliding_window", 8}},
       "use_sliding_window",
       "false",
       "layer_types has sliding_attention"},
      {"mixtral", {{"sliding_window", -1}}, "sliding_window", "-1", "an integer from 0 to"},
      {"smollm3",
       {{"no_rope_layers", {1, 0}}},
       "no_rope_layers",
       "2 entries",
       "num_hidden_layers = 4 entries"},
      {"smollm3",
       {{"no_rope_layers", {1, 1, 2, 0}}},
       "no_rope_layers[2]",
       "2",
       "an integer from 0 to 1"},
      {"gemma3_text",
       {{"final_logit_softcapping", 30.0}},
       "final_logit_softcapping",
       "30.0",
       "null, the only one supported"},
      {"gemma3_text",
       {{"use_bidirectional_attention", true}},
       "use_bidirectional_attention",
       "true",
       "false, the only one supported"},
      {"gemma3_text", {{"query_pre_attn_scalar", 0}}, "query_pre_attn_scalar", "0", "a number"},
      {"minimax_m2", {{"attn_type_list", {1, 0, 1}}}, "attn_type_list", "[1,0,1]", "[1,1,1]"},
      {"minimax_m2", {{"shared_intermediate_size", 64}}, "shared_intermediate_size", "64", "0"},
      {"deepseek_v3", {{"kv_lora_rank", nothing}}, "kv_lora_rank", "nothing", "required"},
      {"deepseek_v3", {{"qk_head_dim", 48}}, "qk_head_dim", "48", "32, the only one supported"},
      {"deepseek_v3", {{"num_key_value_heads", 4}}, "num_key_value_heads", "4", "8"},
      {"deepseek_v2", {{"attention_bias", true}}, "attention_bias", "true", "false"},
  };
}

std::vector<BadConfig> BadExperts() {
  const json nothing = nullptr;
  return {
      {"mixtral", {{"num_experts_per_tok", 9}}, "ffn.experts_per_token", "9", "1 to 8"},
      {"mixtral", {{"num_local_experts", nothing}}, "num_local_experts", "nothing", "required"},
      {"qwen3_moe", {{"num_experts", 16}}, "num_local_experts", "8", "as much as num_experts = 16"},
      {"qwen3_moe",
       {{"mlp_only_layers", {3}}},
       "mlp_only_layers[0]",
       "3",
       "an integer from 0 to 2"},
      {"qwen3_moe", {{"decoder_sparse_step", 0}}, "decoder_sparse_step", "0", "an integer from 1"},
      {"gpt_oss",
       {{"experts_per_token", 4}},
       "experts_per_token",
       "4",
       "2, the only one supported"},
      {"glm4_moe", {{"scoring_func", "softmax"}}, "scoring_func", "\"softmax\"", "\"sigmoid\""},
      {"deepseek_v2",
       {{"topk_method", "noaux_tc"}},
       "topk_method",
       "noaux_tc",
       "greedy or group_limited_greedy"},
      {"deepseek_v2", {{"norm_topk_prob", true}}, "norm_topk_prob", "true", "false"},
      {"deepseek_v3", {{"n_group", 3}}, "ffn.router.groups", "3", "a divisor of the 8 experts"},
      {"deepseek_v3", {{"topk_group", 5}}, "ffn.router.groups_chosen", "5", "1 to 4"},
      {"deepseek_v3",
       {{"topk_group", 1}},
       "ffn.experts_per_token",
       "4",
       "at most the 2 experts of the groups chosen"},
      {"deepseek_v3", {{"n_group", 8}}, "ffn.router.groups", "8", "groups of two experts or more"},
      {"deepseek_v3", {{"moe_layer_freq", 2}}, "moe_layer_freq", "2", "1"},
      {"deepseek_v3",
       {{"num_nextn_predict_layers", 2}},
       "num_nextn_predict_layers",
       "2",
       "an integer from 0 to 1"},
      {"minimax_m2",
       {{"num_local_experts", 8192}, {"num_hidden_layers", 62}},
       "experts of all layers",
       "507904",
       "at most 262144"},
  };
}

TEST(MalformedConfigTest, TellsFileFieldFoundAndWanted) {
  int cases = 0;
  for (const auto& list : {BadSizes(), BadRopes(), BadLayers(), BadExperts()}) {
    for (const BadConfig& test : list) {
      SCOPED_TRACE(absl::StrCat(test.family, " with ", test.patch.dump()));
      json config = GoldenConfig(test.family);
      config.merge_patch(test.patch);
      const auto model = DescribeConfig("some/config.json", config);
      ASSERT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument) << model.status();
      const std::string message(model.status().message());
      EXPECT_THAT(message, StartsWith("some/config.json: "));
      EXPECT_THAT(message,
                  HasSubstr(absl::StrCat(": ", test.field, ": found ", test.found, ", wanted ")));
      const std::string wanted = message.substr(message.find(", wanted ") + 9);
      EXPECT_THAT(wanted, HasSubstr(test.wanted));
      ++cases;
    }
  }
  EXPECT_GE(cases, 40);
}

}  // namespace
}  // namespace troupe
