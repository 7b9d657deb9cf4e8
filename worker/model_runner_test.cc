// What the forward pass promises whatever the model's numbers are: results do not depend on how
// sequences are cut, batched, placed or forked. tests/golden compares with the model's reference.
#include "worker/model_runner.h"

#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/testing/runner_harness.h"

namespace troupe {
namespace {

using Logits = RunnerHarness::Logits;

// Long enough to leave the 256-token windows and to have more than 8 blocks to select from.
constexpr int kTokens = 700;
constexpr int kCompared = 8;

class ModelRunnerTest : public ::testing::TestWithParam<ComputeMode> {
 protected:
  static RunnerHarness::Options HarnessOptions(uint32_t page_seed = 1) {
    RunnerHarness::Options options;
    options.mode = GetParam();
    options.max_context_tokens = 1024;
    options.page_seed = page_seed;
    return options;
  }

  static Logits Alone(const std::vector<uint32_t>& tokens) {
    RunnerHarness harness(HarnessOptions());
    return harness.Feed(0, tokens, 512, kCompared);
  }
};

// NaNs fill every page that is free or behind a window, so equality also shows that nothing is read
// there.
TEST_P(ModelRunnerTest, AnyChunkGivesTheSame) {
  const std::vector<uint32_t> tokens = RandomTokens(kTokens, 1);
  const Logits want = Alone(tokens);
  for (const int chunk : {7, 64, 100}) {
    RunnerHarness harness(HarnessOptions(chunk));
    Logits got;
    // The last tokens in one step, so that as many logits come out.
    harness.Feed(0, {tokens.begin(), tokens.end() - kCompared}, chunk, 0);
    got = harness.Feed(0, {tokens.end() - kCompared, tokens.end()}, kCompared, kCompared);
    EXPECT_EQ(got, want) << "chunk " << chunk;
  }
}

TEST_P(ModelRunnerTest, TokenByTokenEqualsPrefill) {
  const std::vector<uint32_t> tokens = RandomTokens(kTokens, 2);
  const Logits want = Alone(tokens);
  RunnerHarness harness(HarnessOptions(5));
  Logits got;
  for (const uint32_t token : tokens) {
    got.push_back(harness.Feed(0, {token}, 1).front());
  }
  EXPECT_EQ(Logits(got.end() - kCompared, got.end()), want);
}

TEST_P(ModelRunnerTest, SequencesInABatchDoNotTouchEachOther) {
  const std::vector<int> lengths = {kTokens, 333, 64, 530};
  std::vector<std::vector<uint32_t>> prompts;
  std::vector<Logits> want;
  for (size_t i = 0; i < lengths.size(); ++i) {
    prompts.push_back(RandomTokens(lengths[i], 10 + i));
    RunnerHarness harness(HarnessOptions());
    want.push_back(harness.Feed(0, prompts[i], 512, 1));
  }
  // Partial prefills of different sizes and single tokens share the steps.
  RunnerHarness harness(HarnessOptions(77));
  const std::vector<size_t> chunk = {90, 41, 1, 200};
  std::vector<size_t> done(lengths.size(), 0);
  std::vector<Logits> got(lengths.size());
  for (bool more = true; more;) {
    std::vector<RunnerHarness::Row> rows;
    for (size_t i = 0; i < prompts.size(); ++i) {
      const size_t end = std::min(prompts[i].size(), done[i] + chunk[i]);
      if (end == done[i]) continue;
      RunnerHarness::Row row;
      row.slot = static_cast<uint32_t>(3 - i);
      row.tokens.assign(prompts[i].begin() + done[i], prompts[i].begin() + end);
      row.logits = end == prompts[i].size() ? 1 : 0;
      done[i] = end;
      rows.push_back(std::move(row));
    }
    more = !rows.empty();
    if (!more) break;
    const Logits logits = RunnerHarness::Copy(harness.Step(rows).logits);
    size_t next = 0;
    for (const RunnerHarness::Row& row : rows) {
      if (row.logits > 0) got[3 - row.slot] = {logits[next++]};
    }
  }
  EXPECT_EQ(got, want);
}

TEST_P(ModelRunnerTest, AForkContinuesLikeItsParent) {
  // Inside a block, which is then copied, and at a block's end, where all pages are shared.
  for (const int length : {600, 640}) {
    const std::vector<uint32_t> prompt = RandomTokens(length, 3);
    const std::vector<std::vector<uint32_t>> branches = {RandomTokens(90, 4), RandomTokens(90, 5)};
    RunnerHarness harness(HarnessOptions());
    harness.Feed(0, prompt, 512);
    harness.Fork(0, 2);
    std::vector<Logits> got(2);
    for (size_t i = 0; i < branches[0].size(); ++i) {
      const Logits step =
          RunnerHarness::Copy(harness.Step({{0, {branches[0][i]}}, {2, {branches[1][i]}}}).logits);
      got = {{step[0]}, {step[1]}};
    }
    for (size_t b = 0; b < branches.size(); ++b) {
      std::vector<uint32_t> tokens = prompt;
      tokens.insert(tokens.end(), branches[b].begin(), branches[b].end());
      EXPECT_EQ(got[b], Logits({Alone(tokens).back()})) << length << " tokens, branch " << b;
    }
  }
}

TEST_P(ModelRunnerTest, AnyNumberOfThreadsGivesTheSame) {
  const std::vector<uint32_t> tokens = RandomTokens(kTokens, 8);
  const Logits want = Alone(tokens);
  for (const int threads : {1, 3}) {
    RunnerHarness::Options options = HarnessOptions();
    options.threads = threads;
    RunnerHarness harness(options);
    EXPECT_EQ(harness.Feed(0, tokens, 512, kCompared), want) << threads << " threads";
  }
}

TEST_P(ModelRunnerTest, APageThatWasUsedBeforeGivesTheSame) {
  const std::vector<uint32_t> tokens = RandomTokens(kTokens, 6);
  const Logits want = Alone(tokens);
  RunnerHarness harness(HarnessOptions());
  for (uint32_t seed = 0; seed < 3; ++seed) {
    harness.Feed(1, RandomTokens(kTokens, 100 + seed), 512);
    EXPECT_EQ(harness.Feed(0, tokens, 512, kCompared), want);
    harness.Finish(1);
    harness.Finish(0);
  }
}

TEST_P(ModelRunnerTest, CountsClosedHeadsAndExpertTokensOfTheStepOnly) {
  RunnerHarness harness(HarnessOptions());
  const int heads = harness.model().gated_heads();
  EXPECT_EQ(heads, 64);
  const std::vector<uint32_t> tokens = RandomTokens(50, 7);
  for (int step = 0; step < 2; ++step) {
    const StepOutput output = harness.Step(
        {{0, tokens, 1, {2.0F, 0}}, {1, {tokens[0]}, 1, {0, 0}}, {2, tokens, 0, {0.3F, 0}}});
    EXPECT_EQ(output.heads_closed[0], 50 * heads);  // no gate reaches 2
    EXPECT_EQ(output.heads_closed[1], 0);
    EXPECT_GT(output.heads_closed[2], 50);
    EXPECT_LT(output.heads_closed[2], 50 * heads);
    ASSERT_EQ(output.expert_tokens.size(), 7U * 16U);
    for (int layer = 0; layer < 7; ++layer) {
      int chosen = 0;
      for (int e = 0; e < 16; ++e) chosen += output.expert_tokens[layer * 16 + e];
      EXPECT_EQ(chosen, 2 * 101);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Modes, ModelRunnerTest,
                         ::testing::Values(ComputeMode::kF32, ComputeMode::kBf16),
                         [](const auto& info) {
                           return info.param == ComputeMode::kF32 ? "F32" : "Bf16";
                         });

TEST(StepInputTest, DescribesItsRows) {
  StepInput input(2, 8);
  input.AddRow(5, 100, {1, 2, 3}, {}, 2);
  EXPECT_TRUE(input.Fits(5));
  EXPECT_FALSE(input.Fits(6));
  input.AddRow(1, 0, {9}, {}, 1);
  EXPECT_FALSE(input.Fits(1));
  const BatchView batch = input.batch();
  EXPECT_EQ(batch.rows, 2);
  EXPECT_EQ(batch.tokens, 4);
  EXPECT_THAT(std::vector<int32_t>(batch.position, batch.position + 4),
              ::testing::ElementsAre(100, 101, 102, 0));
  EXPECT_THAT(std::vector<int32_t>(batch.token_row, batch.token_row + 4),
              ::testing::ElementsAre(0, 0, 0, 1));
  EXPECT_THAT(std::vector<int32_t>(batch.first, batch.first + 3), ::testing::ElementsAre(0, 3, 4));
  EXPECT_THAT(input.logit_tokens(), ::testing::ElementsAre(1, 2, 3));
  input.Clear();
  EXPECT_EQ(input.rows(), 0);
  EXPECT_TRUE(input.logit_tokens().empty());
}

TEST(ModelRunnerCreateTest, RefusesMtpThatIsNotLoaded) {
  RunnerHarness harness({});
  ModelRunner::Options options;
  options.mtp = true;
  const auto runner =
      ModelRunner::Create(&harness.model(), &harness.pages(), &harness.ops(), options);
  EXPECT_EQ(runner.status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace troupe
