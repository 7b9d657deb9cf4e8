// What the forward pass of a model with latent attention promises: no other sequence and no thread
// moves a bit; the cut into steps, which decides between the two forms, moves the last ones only.
// tests/golden compares with transformers.
#include "worker/mla_layer.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "gtest/gtest.h"
#include "model/checkpoint.h"
#include "worker/testing/runner_harness.h"

namespace troupe {
namespace {

using Logits = RunnerHarness::Logits;

struct Case {
  std::string name;
  std::string folder;
  ComputeMode mode;
  float tolerance;  // of logits under another cut
};

std::unique_ptr<RunnerHarness> MakeHarness(const Case& c, int threads = 2) {
  auto checkpoint = Checkpoint::Open(SourcePath("tests/golden/models/" + c.folder));
  CHECK_OK(checkpoint.status());
  const auto isa = DetectCpuIsa();
  CHECK_OK(isa.status());
  auto ops = MakeCpuOps({.threads = threads, .isa = *isa});
  auto model = LoadModel(*checkpoint, ops.get(), {.mode = c.mode});
  CHECK_OK(model.status());
  RunnerHarness::Options options;
  options.max_context_tokens = 512;
  auto harness = RunnerHarness::Create(std::move(ops), *std::move(model), options);
  CHECK_OK(harness.status());
  return *std::move(harness);
}

std::vector<uint32_t> Prompt(int count, uint32_t seed) {
  std::vector<uint32_t> tokens = RandomTokens(count, seed);
  for (uint32_t& token : tokens) token = token % 300 + 3;
  return tokens;
}

class MlaLayerTest : public ::testing::TestWithParam<Case> {};

// Prompts and single tokens of some sequences in the same steps: rows of either form beside each
// other.
TEST_P(MlaLayerTest, SequencesInABatchDoNotTouchEachOther) {
  const std::vector<size_t> chunk = {64, 1, 17};
  std::vector<std::vector<uint32_t>> prompts = {Prompt(200, 1), Prompt(9, 2), Prompt(90, 3)};
  std::vector<Logits> want;
  for (size_t i = 0; i < prompts.size(); ++i) {
    want.push_back(MakeHarness(GetParam())->Feed(0, prompts[i], static_cast<int>(chunk[i]), 1));
  }
  const auto harness = MakeHarness(GetParam());
  std::vector<Logits> got(prompts.size());
  for (size_t begin = 0; std::any_of(got.begin(), got.end(), [](auto& l) { return l.empty(); });
       ++begin) {
    std::vector<RunnerHarness::Row> rows;
    std::vector<size_t> last;
    for (size_t i = 0; i < prompts.size(); ++i) {
      const size_t first = begin * chunk[i];
      if (first >= prompts[i].size()) continue;
      const size_t end = std::min(prompts[i].size(), first + chunk[i]);
      RunnerHarness::Row row;
      row.slot = static_cast<uint32_t>(i);
      row.tokens.assign(prompts[i].begin() + first, prompts[i].begin() + end);
      row.logits = end == prompts[i].size() ? 1 : 0;
      if (row.logits > 0) last.push_back(i);
      rows.push_back(row);
    }
    const Logits logits = RunnerHarness::Copy(harness->Step(rows).logits);
    for (size_t i = 0; i < last.size(); ++i) got[last[i]] = {logits[i]};
  }
  EXPECT_EQ(got, want);
}

TEST_P(MlaLayerTest, AnyNumberOfThreadsGivesTheSame) {
  const std::vector<uint32_t> tokens = Prompt(150, 4);
  const Logits want = MakeHarness(GetParam(), 1)->Feed(0, tokens, 64, 8);
  EXPECT_EQ(MakeHarness(GetParam(), 5)->Feed(0, tokens, 64, 8), want);
}

TEST_P(MlaLayerTest, TheCutIntoStepsMovesRoundingOnly) {
  const std::vector<uint32_t> tokens = Prompt(200, 5);
  const std::vector<float> want = MakeHarness(GetParam())->Feed(0, tokens, 512, 1)[0];
  for (const int chunk : {1, 50}) {
    const std::vector<float> got = MakeHarness(GetParam())->Feed(0, tokens, chunk, 1)[0];
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) {
      EXPECT_NEAR(got[i], want[i], GetParam().tolerance) << "logit " << i << ", chunk " << chunk;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, MlaLayerTest,
    ::testing::Values(Case{"V2", "deepseek_v2", ComputeMode::kF32, 1e-4F},
                      Case{"V3", "deepseek_v3", ComputeMode::kF32, 1e-4F},
                      // A router may choose another expert where two scores are as good as equal.
                      Case{"V2Bf16", "deepseek_v2", ComputeMode::kBf16, 0.1F}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace troupe
