// Replicas of many ranks, in one process, give what transformers and the bundled model's reference
// give: a choice of layouts that covers each way to cut each kind of layer. All of them:
// tests/golden/check FOLDER --layout all.
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "sharding/layout_rules.h"
#include "tests/golden/abacus_check.h"
#include "tests/golden/model_check.h"
#include "worker/testing/runner_harness.h"

namespace troupe {
namespace {

struct Case {
  const char* model;
  const char* layout;
  bool gloo = false;
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.model << " " << c.layout << (c.gloo ? " over Gloo" : "");
}

class Layouts : public ::testing::TestWithParam<Case> {};

TEST_P(Layouts, LogitsAndGreedyTokens) {
  const absl::StatusOr<Layout> layout = ParseLayout(GetParam().layout);
  ASSERT_TRUE(layout.ok()) << layout.status();
  const CompareOptions options = {
      .layout = *layout, .gloo = GetParam().gloo, .feeds = {PromptFeed::kRagged}};
  const std::string model = GetParam().model;
  std::vector<ModelComparison> comparisons;
  if (model == "abacus") {
    const auto comparison = CompareAbacus(options);
    ASSERT_TRUE(comparison.ok()) << comparison.status();
    comparisons.push_back(*comparison);
  } else {
    const auto all =
        CompareModel(SourcePath("tests/golden/models/" + model), kModelConfigs[0], options);
    ASSERT_TRUE(all.ok()) << all.status();
    comparisons = *all;
  }
  ASSERT_EQ(comparisons.size(), 1U);
  EXPECT_LE(comparisons[0].error, kModelLogitTolerance);
  EXPECT_EQ(comparisons[0].greedy_equal, comparisons[0].greedy_tokens);
  EXPECT_GT(comparisons[0].greedy_tokens, 0);
}

INSTANTIATE_TEST_SUITE_P(
    Ranks, Layouts,
    ::testing::Values(
        // Sparse attention, head gates, a shared expert, dense and MoE layers.
        Case{"abacus", "tp2"}, Case{"abacus", "tp2 dp2 ep"}, Case{"abacus", "dp2 pp2 ep +5"},
        // Latents; experts in groups; blocks of FP8 that tp cuts.
        Case{"deepseek_v2", "tp8"}, Case{"deepseek_v3", "tp2 dp2 pp2 ep"},
        Case{"deepseek_v3_fp8", "tp4 dp2 ep"}, Case{"qwen3_fp8", "tp2 pp2"},
        // KV heads on several ranks, sinks, biases of outputs, windows; MXFP4.
        Case{"gpt_oss", "tp4 dp2 ep"}, Case{"gpt_oss", "tp8"}, Case{"gpt_oss_mxfp4", "tp2 pp2"},
        // Norms over all heads, norms after sublayers, tied embeddings.
        Case{"minimax_m2", "tp4"}, Case{"olmo3", "tp8"}, Case{"olmo3", "tp2 pp4"},
        Case{"gemma3_text", "tp4 dp2"}, Case{"qwen2", "tp2 dp2 pp2"}, Case{"smollm3", "pp4"},
        // Groups of integers that tp cuts; copies of experts.
        Case{"llama_awq", "tp4"}, Case{"llama_gptq", "tp8"}, Case{"qwen3_moe_ct", "tp2 ep"},
        Case{"qwen3_moe", "dp8 ep +16"}, Case{"mixtral", "tp4 ep +4"}, Case{"glm4_moe", "dp4 ep"},
        Case{"qwen3_moe", "tp2 dp2 ep", true}, Case{"llama", "tp2 pp2", true}));

}  // namespace
}  // namespace troupe
