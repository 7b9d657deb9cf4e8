#include "coordinator/scheduler/chunking.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "coordinator/scheduler/step_pace.h"

namespace troupe {
namespace {

constexpr PrefillLimits kLimits = {
    .max_step_tokens = 2048, .mixed_tokens = 1024, .mixed_us = 5000, .min_chunk_tokens = 16};

TEST(PrefillBudget, IsWholeStepWithoutDecodeRows) {
  EXPECT_EQ(PrefillBudget(kLimits, 0, 1), 2048u);
  EXPECT_EQ(PrefillBudget(kLimits, 1, 1), 256u) << "nothing was measured";
}

TEST(PrefillBudget, BesideDecodeRowsFollowsThePaceOfPromptsWhereThereIsNoOther) {
  PrefillLimits limits = kLimits;
  limits.prefill_tokens_per_us = 0.01;
  EXPECT_EQ(PrefillBudget(limits, 8, 1), 50u);
  limits.prefill_tokens_per_us = 1;
  EXPECT_EQ(PrefillBudget(limits, 8, 1), 1024u);
  limits.prefill_tokens_per_us = 1e-6;
  EXPECT_EQ(PrefillBudget(limits, 8, 1), 16u);
}

TEST(PrefillBudget, GoesByWhatATokenAdds) {
  PrefillLimits limits = kLimits;
  limits.prefill_tokens_per_us = 0.001;
  limits.pace = {.decode_us = 2'000, .token_us = 25};
  EXPECT_EQ(PrefillBudget(limits, 8, 1), 200u) << "5 ms";
  limits.pace.decode_us = 20'000;
  EXPECT_EQ(PrefillBudget(limits, 8, 1), 800u) << "as long again as decoding";
}

TEST(PrefillBudget, ManyPromptsDoNotWaitForFewRows) {
  PrefillLimits limits = kLimits;
  limits.pace = {.decode_us = 10'000, .token_us = 100};
  EXPECT_EQ(PrefillBudget(limits, 8, 8), 100u);
  EXPECT_EQ(PrefillBudget(limits, 8, 24), 300u);
  EXPECT_EQ(PrefillBudget(limits, 1, 30), 1024u);
}

TEST(PrefillBudget, TriesOtherSizesWhereStepsWereAlike) {
  PrefillLimits limits = kLimits;
  limits.prefill_tokens_per_us = 0.001;
  limits.pace = {.decode_us = 9'000, .tokens = 16};
  EXPECT_EQ(PrefillBudget(limits, 8, 1), 32u);
}

TEST(PrefillBudget, StaysInTheStep) {
  PrefillLimits limits = kLimits;
  limits.max_step_tokens = 20;
  EXPECT_EQ(PrefillBudget(limits, 12, 1), 8u);
  EXPECT_EQ(PrefillBudget(limits, 20, 1), 0u);
}

TEST(StepPace, SeparatesDecodingFromPromptTokens) {
  StepPaceMeter meter;
  EXPECT_EQ(meter.pace().token_us, 0);
  meter.Observe(1000, 0, 50'000);  // a prompt alone
  EXPECT_EQ(meter.pace().decode_us, 0);
  std::mt19937 random(3);
  for (int step = 0; step < 60; ++step) {
    const uint32_t tokens = random() % 3 == 0 ? 0 : random() % 400;
    meter.Observe(tokens, 16, 8'000 + 20 * tokens);
  }
  EXPECT_NEAR(meter.pace().token_us, 20, 1e-6);
  EXPECT_NEAR(meter.pace().decode_us, 8'000, 1e-3);
}

TEST(StepPace, StepsThatAreAlikeSayNothingOfATokenUntilOneDiffers) {
  StepPaceMeter meter;
  for (int step = 0; step < 50; ++step) meter.Observe(16, 4, 10'000);
  EXPECT_EQ(meter.pace().token_us, 0);
  EXPECT_NEAR(meter.pace().tokens, 16, 1e-9);
  meter.Observe(32, 4, 10'160);
  EXPECT_NEAR(meter.pace().token_us, 10, 1e-6);
}

TEST(StepPace, ABeliefThatNothingSupportsFades) {
  StepPaceMeter meter;
  meter.Observe(16, 4, 10'000);
  meter.Observe(32, 4, 90'000);  // something else took so long
  EXPECT_GT(meter.pace().token_us, 4'000);
  uint32_t tokens = 16;
  for (int step = 0; step < 1000 && tokens < 256; ++step) {
    PrefillLimits limits = kLimits;
    limits.pace = meter.pace();
    tokens = PrefillBudget(limits, 4, 1);
    meter.Observe(tokens, 4, 10'000 + 10 * tokens);
  }
  EXPECT_GE(tokens, 256u);
}

TEST(StepPace, FollowsABatchThatGrows) {
  StepPaceMeter meter;
  for (uint32_t step = 0; step < 200; ++step) {
    const uint32_t tokens = step % 5 * 100;
    meter.Observe(tokens, 1 + step, 2'000 + 50 * step + 25 * tokens);
  }
  EXPECT_NEAR(meter.pace().token_us, 25, 2);
  EXPECT_NEAR(meter.pace().decode_us, 12'000, 1'000);
}

TEST(ShareBudget, ShortPromptsAreFinishedLongOnesShareTheRest) {
  EXPECT_EQ(ShareBudget(256, 16, {65'000, 40, 10}), (std::vector<uint32_t>{206, 40, 10}));
  EXPECT_EQ(ShareBudget(256, 16, {65'000, 64'000}), (std::vector<uint32_t>{128, 128}));
  EXPECT_EQ(ShareBudget(256, 16, {100}), (std::vector<uint32_t>{100}));
}

TEST(ShareBudget, TooManyPromptsTheMostUrgentTakesPart) {
  EXPECT_EQ(ShareBudget(32, 16, {9000, 500, 300, 400}), (std::vector<uint32_t>{16, 0, 16, 0}));
  EXPECT_EQ(ShareBudget(8, 16, {9000, 5}), (std::vector<uint32_t>{8, 0}));
}

TEST(ShareBudget, NeverMoreThanBudgetOrRemainingAndWorkConserving) {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::vector<uint32_t> remaining(1 + random() % 12);
    for (uint32_t& tokens : remaining) tokens = 1 + random() % (random() % 2 ? 20 : 5000);
    const uint32_t budget = random() % 600;
    const uint32_t min_chunk = 1 + random() % 32;
    const std::vector<uint32_t> chunks = ShareBudget(budget, min_chunk, remaining);
    uint64_t sum = 0;
    bool all_whole = true;
    for (size_t i = 0; i < chunks.size(); ++i) {
      EXPECT_LE(chunks[i], remaining[i]);
      sum += chunks[i];
      all_whole = all_whole && chunks[i] == remaining[i];
      if (chunks[i] != 0 && chunks[i] < min_chunk && budget >= min_chunk) {
        EXPECT_EQ(chunks[i], remaining[i]);
      }
    }
    EXPECT_LE(sum, budget);
    EXPECT_TRUE(remaining.size() * min_chunk > budget || sum == budget || all_whole);
    EXPECT_TRUE(budget == 0 || chunks[0] > 0);
  }
}

}  // namespace
}  // namespace troupe
