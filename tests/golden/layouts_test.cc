// Replicas of many ranks, in one process, give what transformers and the bundled model's reference
// give: a choice of layouts that covers each way to cut each kind of layer. All of them:
// tests/golden/check FOLDER --layout all.
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint.h"
#include "sharding/layout_plan.h"
#include "sharding/layout_rules.h"
#include "tests/golden/abacus_check.h"
#include "tests/golden/compare.h"
#include "tests/golden/model_check.h"
#include "worker/testing/replica_harness.h"
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
        Case{"llama_awq", "tp4"}, Case{"llama_gptq", "tp4"}, Case{"qwen3_moe_ct", "tp2 ep"},
        Case{"qwen3_moe", "dp8 ep +16"}, Case{"mixtral", "tp4 ep +4"}, Case{"glm4_moe", "dp4 ep"},
        Case{"qwen3_moe", "tp2 dp2 ep", true}, Case{"llama", "tp2 pp2", true}));

// 96 inputs over 8 ranks: 12 columns each, that begin inside groups of 32.
TEST(LayoutsTest, GroupsThatCannotBeCutAreNamed) {
  const auto comparisons = CompareModel(SourcePath("tests/golden/models/llama_gptq"),
                                        kModelConfigs[0], {.layout = {.tp = 8}});
  EXPECT_EQ(comparisons.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(
      std::string(comparisons.status().message()),
      ::testing::AllOf(::testing::HasSubstr("down_proj"), ::testing::HasSubstr("group of 32"),
                       ::testing::HasSubstr("wanted a multiple of 8")));
}

std::unique_ptr<ReplicaHarness> Replica(const Checkpoint& checkpoint, const char* layout,
                                        bool mtp = false, int micro_batches = 1) {
  RunnerHarness::Options runner;
  runner.slots = 8;
  runner.mtp = mtp;
  runner.micro_batches = micro_batches;
  auto replica = ReplicaHarness::Create(checkpoint, [] { return MakeDeviceOps("cpu", 1); },
                                        {.runner = runner, .layout = *ParseLayout(layout)});
  CHECK_OK(replica.status());
  return *std::move(replica);
}

Checkpoint OpenModel(const std::string& folder) {
  auto checkpoint = Checkpoint::Open(SourcePath(folder));
  CHECK_OK(checkpoint.status());
  return *std::move(checkpoint);
}

// Bit for bit, whoever shares the steps, however a prompt is cut, and whichever home it has: copies
// of experts are chosen by a token's position alone.
TEST(LayoutsTest, CompanyCutsAndHomesDoNotMatter) {
  const Checkpoint checkpoint = OpenModel("tests/golden/models/qwen3_moe");
  const std::unique_ptr<ReplicaHarness> replica = Replica(checkpoint, "tp2 dp2 ep +8");
  const std::vector<uint32_t> tokens = RandomTokens(40, 1);
  std::vector<uint32_t> in_vocabulary;
  in_vocabulary.reserve(tokens.size());
  for (const uint32_t token : tokens) in_vocabulary.push_back(token % 320);
  const auto rest = std::vector<uint32_t>(in_vocabulary.begin() + 25, in_vocabulary.end());
  const auto first = std::vector<uint32_t>(in_vocabulary.begin(), in_vocabulary.begin() + 25);
  const RunnerHarness::Logits alone =
      replica->Step({{.slot = 0, .tokens = in_vocabulary, .logits = 15}});
  replica->Finish(0);

  // In another home, in two steps, beside others in both.
  const RunnerHarness::Row company = {.slot = 2, .tokens = {5, 6, 7}};
  replica->Step({company, {.slot = 3, .tokens = first}});
  const RunnerHarness::Logits together = replica->Step(
      {{.slot = 4, .tokens = {9}}, {.slot = 3, .tokens = rest, .logits = 15}, company});
  ASSERT_EQ(together.size(), 17U);
  EXPECT_EQ(RunnerHarness::Logits(together.begin() + 1, together.begin() + 16), alone);
}

// Bit for bit, in however many parts a step passes the stages: sequences that are cut, some with
// more parts than tokens, and a home without any.
TEST(LayoutsTest, MicroBatchesDoNotMatter) {
  struct Model {
    const char* folder;
    const char* layout;
  };
  for (const Model& model : {Model{"models/abacus", "pp2"}, Model{"models/abacus", "dp2 pp2 ep +5"},
                             Model{"tests/golden/models/qwen3_moe", "tp2 pp2"},
                             Model{"tests/golden/models/deepseek_v2", "pp2"}}) {
    SCOPED_TRACE(absl::StrCat(model.folder, " ", model.layout));
    const Checkpoint checkpoint = OpenModel(model.folder);
    std::vector<RunnerHarness::Row> rows;
    for (uint32_t slot = 0; slot < 5; ++slot) {
      std::vector<uint32_t> tokens = RandomTokens(slot == 1 ? 70 : 1 + 3 * slot, slot);
      for (uint32_t& token : tokens) token %= 250;
      rows.push_back({.slot = slot, .tokens = tokens, .logits = 1});
    }
    rows[1].logits = 9;
    const RunnerHarness::Row alone = {.slot = 2, .tokens = {7, 8, 9}};
    std::vector<RunnerHarness::Logits> want;
    std::vector<ReplicaHarness::Counts> counts;
    for (const int parts : {1, 3, 8}) {
      const std::unique_ptr<ReplicaHarness> replica =
          Replica(checkpoint, model.layout, /*mtp=*/false, parts);
      std::vector<RunnerHarness::Logits> got = {replica->Step(rows)};
      std::vector<ReplicaHarness::Counts> counted;
      counted.reserve(replica->map().layout.world());
      for (int rank = 0; rank < replica->map().layout.world(); ++rank) {
        counted.push_back(replica->counts(rank));
      }
      got.push_back(replica->Step({alone}));
      ASSERT_EQ(got[0].size(), 13U);
      if (parts == 1) {
        want = got;
        counts = counted;
      }
      EXPECT_TRUE(got == want) << parts << " parts";
      EXPECT_TRUE(counted == counts) << parts << " parts";
    }
  }
}

// The MTP module is on the last stage, with experts of its own.
TEST(LayoutsTest, MtpModule) {
  const Checkpoint checkpoint = OpenModel("models/abacus");
  std::vector<RunnerHarness::Row> rows;
  std::vector<std::vector<uint32_t>> next_tokens;
  for (uint32_t slot = 0; slot < 3; ++slot) {
    std::vector<uint32_t> tokens = RandomTokens(60, slot);
    next_tokens.emplace_back(tokens.begin() + 1, tokens.end());
    tokens.pop_back();
    rows.push_back({.slot = slot, .tokens = tokens, .logits = 8});
  }
  RunnerHarness::Logits want;
  for (const char* layout : {"tp1", "tp2", "tp2 dp2 ep", "pp2", "dp4 pp2 ep +3"}) {
    const std::unique_ptr<ReplicaHarness> replica = Replica(checkpoint, layout, /*mtp=*/true);
    replica->Step(rows);
    const RunnerHarness::Logits got = replica->StepMtp(rows, next_tokens);
    if (want.empty()) want = got;
    EXPECT_EQ(got.size(), 24U);
    EXPECT_LT(Difference(got, want), kModelLogitTolerance) << layout;
  }
}

// What ranks hold is what was worked out before they were loaded.
TEST(LayoutsTest, RanksHoldWhatWasPlanned) {
  const Checkpoint checkpoint = OpenModel("models/abacus");
  const ModelDescription& model = checkpoint.description();
  for (const char* layout : {"tp1", "tp2", "tp2 dp2 ep", "dp2 pp2 ep +5"}) {
    const std::unique_ptr<ReplicaHarness> replica = Replica(checkpoint, layout);
    const Sizing sizing = {.kv_bytes_per_element = 4, .step_tokens = 512, .logit_tokens = 32};
    for (int rank = 0; rank < replica->map().layout.world(); ++rank) {
      RunnerHarness& harness = replica->rank(rank);
      const RankBytes planned = BytesOfRank(model, replica->map(), rank, sizing);
      const auto weights = static_cast<double>(harness.model().weight_bytes);
      // Norms and biases are kept in f32, and matrices in panels that are filled up.
      EXPECT_NEAR(weights / static_cast<double>(planned.weights), 1.05, 0.1) << layout;
      const auto activations = static_cast<double>(harness.runner().activation_bytes());
      EXPECT_NEAR(activations / static_cast<double>(planned.activations), 1, 0.05) << layout;
      int64_t kv_per_token = 0;
      for (const StateGroup& group : harness.pages().groups()) {
        if (group.kind != StateGroupKind::kWindow) kv_per_token += BytesPerToken(group);
      }
      EXPECT_EQ(kv_per_token, planned.kv_per_token) << layout;
    }
  }
}

}  // namespace
}  // namespace troupe
