// Every family's results are the same, bit for bit, whatever shares the steps and, but for latent
// attention (docs/adr/0006), however a sequence is cut into steps, in f32 and in bf16. Free pages,
// and those behind windows, hold NaNs.
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/check.h"
#include "gtest/gtest.h"
#include "model/checkpoint.h"
#include "worker/testing/runner_harness.h"

namespace troupe {
namespace {

using Logits = RunnerHarness::Logits;

// Over some pages, and past the windows of all models.
constexpr int kTokens = 150;

class InvarianceTest : public ::testing::TestWithParam<std::tuple<const char*, ComputeMode>> {
 protected:
  static std::unique_ptr<RunnerHarness> Harness() {
    const auto& [name, mode] = GetParam();
    const auto checkpoint =
        Checkpoint::Open(SourcePath(std::string("tests/golden/models/") + name));
    CHECK_OK(checkpoint.status());
    const auto isa = DetectCpuIsa();
    CHECK_OK(isa.status());
    std::unique_ptr<Ops> ops = MakeCpuOps({.isa = *isa});
    auto model = LoadModel(*checkpoint, ops.get(), {.mode = mode});
    CHECK_OK(model.status());
    auto harness = RunnerHarness::Create(std::move(ops), *std::move(model),
                                         {.max_context_tokens = 256, .max_logit_tokens = kTokens});
    CHECK_OK(harness.status());
    return *std::move(harness);
  }

  static std::vector<uint32_t> Tokens(const RunnerHarness& harness, uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<uint32_t> tokens(kTokens);
    for (uint32_t& token : tokens) {
      token = static_cast<uint32_t>(random() % harness.model().description.vocab_size);
    }
    return tokens;
  }
};

bool CutMatters(const ModelDescription& description) {
  return description.layers.front().attention.mla.has_value();
}

TEST_P(InvarianceTest, StepsAndCompanyDoNotMatter) {
  const std::unique_ptr<RunnerHarness> harness = Harness();
  const std::vector<uint32_t> tokens = Tokens(*harness, 1);
  const std::vector<uint32_t> others = Tokens(*harness, 2);
  Logits want;
  for (const uint32_t token : tokens) want.push_back(harness->Feed(0, {token}, 1).front());
  harness->Finish(0);
  if (!CutMatters(harness->model().description)) {
    EXPECT_EQ(harness->Feed(0, tokens, kTokens, kTokens), want) << "in one step";
    harness->Finish(0);
  }

  Logits got;
  for (int i = 0; i < kTokens; ++i) {
    // A second sequence in chunks of three, and a third that is one token behind.
    std::vector<RunnerHarness::Row> rows = {{.slot = 1, .tokens = {tokens[i]}}};
    if (3 * i + 3 <= kTokens) {
      rows.insert(
          rows.begin(),
          {.slot = 2, .tokens = {others.begin() + 3 * i, others.begin() + 3 * i + 3}, .logits = 0});
    }
    if (i > 0) rows.push_back({.slot = 3, .tokens = {tokens[i - 1]}});
    const Logits logits = RunnerHarness::Copy(harness->Step(rows).logits);
    got.push_back(logits.front());
    if (i > 0) {
      EXPECT_EQ(logits.back(), want[i - 1]) << "one behind, token " << i;
    }
  }
  EXPECT_EQ(got, want) << "in company";
}

INSTANTIATE_TEST_SUITE_P(
    Families, InvarianceTest,
    ::testing::Combine(::testing::Values("deepseek_v2", "deepseek_v3", "gemma3_text", "glm4_moe",
                                         "gpt_oss", "gpt_oss_mxfp4", "llama", "llama_awq",
                                         "minimax_m2", "mixtral", "olmo3", "qwen2", "qwen3",
                                         "qwen3_fp8", "qwen3_moe", "qwen3_moe_ct", "smollm3"),
                       ::testing::Values(ComputeMode::kF32, ComputeMode::kBf16)),
    [](const auto& info) {
      return std::string(std::get<0>(info.param)) +
             (std::get<1>(info.param) == ComputeMode::kF32 ? "_f32" : "_bf16");
    });

}  // namespace
}  // namespace troupe
