#include "worker/sampler.h"

#include <cmath>
#include <limits>
#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

SampledToken MustSample(const SamplingParams& params, std::vector<float> logits, uint64_t index = 0,
                        const TokenCounts* counts = nullptr) {
  SamplerScratch scratch;
  auto sampled = Sample(params, counts, index, absl::MakeSpan(logits), scratch);
  EXPECT_TRUE(sampled.ok()) << sampled.status();
  return sampled.value_or(SampledToken{});
}

// How often each token comes in `draws` draws.
std::map<uint32_t, int> Histogram(const SamplingParams& params, const std::vector<float>& logits,
                                  int draws) {
  std::map<uint32_t, int> counts;
  for (int i = 0; i < draws; ++i) ++counts[MustSample(params, logits, i).token];
  return counts;
}

TEST(SamplerTest, GreedyTakesTheLowestIdAmongTheBest) {
  EXPECT_EQ(MustSample({}, {1, 3, 2, 3}).token, 1u);
}

TEST(SamplerTest, MaskedTokensAreNeverDrawn) {
  const std::vector<float> logits = {-kInfinity, 0, -kInfinity, 0};
  for (const auto& [token, count] : Histogram({.temperature = 2}, logits, 200)) {
    EXPECT_TRUE(token == 1 || token == 3) << token;
  }
}

TEST(SamplerTest, DamagedLogitsAreAnError) {
  SamplerScratch scratch;
  for (float bad : {std::nanf(""), kInfinity}) {
    for (float temperature : {0.0f, 1.0f}) {
      std::vector<float> logits = {0, bad, 1};
      auto result =
          Sample({.temperature = temperature}, nullptr, 0, absl::MakeSpan(logits), scratch);
      EXPECT_EQ(result.status().code(), absl::StatusCode::kInternal);
      EXPECT_THAT(result.status().message(), HasSubstr("token 1"));
    }
  }
  std::vector<float> none = {-kInfinity, -kInfinity};
  EXPECT_FALSE(Sample({}, nullptr, 0, absl::MakeSpan(none), scratch).ok());
}

TEST(SamplerTest, DrawsFollowTheSoftmaxAtTheTemperature) {
  const std::vector<float> logits = {0, 1, 2, -1};
  constexpr int kDraws = 20000;
  for (float temperature : {0.5f, 1.0f, 2.0f}) {
    double total = 0;
    for (float l : logits) total += std::exp(l / temperature);
    double chi_square = 0;
    auto counts = Histogram({.temperature = temperature, .seed = 7}, logits, kDraws);
    for (uint32_t i = 0; i < logits.size(); ++i) {
      const double expected = kDraws * std::exp(logits[i] / temperature) / total;
      chi_square += std::pow(counts[i] - expected, 2) / expected;
    }
    EXPECT_LT(chi_square, 16.27) << "3 degrees of freedom, p = 0.001; T = " << temperature;
  }
}

TEST(SamplerTest, TopKKeepsTheBestAndTheLowerIdsOfTies) {
  auto counts = Histogram({.temperature = 1, .top_k = 2}, {1, 2, 1, 1}, 300);
  EXPECT_EQ(counts.size(), 2u);
  EXPECT_TRUE(counts.contains(0) && counts.contains(1));
}

TEST(SamplerTest, TopPKeepsTheFewestThatReachIt) {
  // Probabilities .1, .6, .3.
  const std::vector<float> logits = {std::log(.1f), std::log(.6f), std::log(.3f)};
  EXPECT_EQ(Histogram({.temperature = 1, .top_p = .5f}, logits, 300).size(), 1u);
  EXPECT_EQ(Histogram({.temperature = 1, .top_p = .85f}, logits, 300).size(), 2u);
  EXPECT_EQ(Histogram({.temperature = 1, .top_p = .95f}, logits, 300).size(), 3u);
}

TEST(SamplerTest, TopPHandlesFlatLargeVocabularies) {
  const std::vector<float> logits(5000, 0.25f);
  auto counts = Histogram({.temperature = 1, .top_p = .5f}, logits, 300);
  for (const auto& [token, count] : counts) EXPECT_LT(token, 2501u);
  EXPECT_GT(counts.size(), 200u);
}

TEST(SamplerTest, MinPIsRelativeToTheBest) {
  const std::vector<float> logits = {std::log(.1f), std::log(.6f), std::log(.3f)};
  EXPECT_EQ(Histogram({.temperature = 1, .min_p = .4f}, logits, 300).size(), 2u);
  EXPECT_EQ(Histogram({.temperature = 1, .min_p = .6f}, logits, 300).size(), 1u);
}

TEST(SamplerTest, DrawDependsOnSeedAndIndexAlone) {
  std::vector<float> logits(100);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i % 7);
  const SamplingParams params = {.temperature = 1, .top_k = 40, .top_p = .9f, .seed = 5};
  bool differs = false;
  for (uint64_t index = 0; index < 50; ++index) {
    EXPECT_EQ(MustSample(params, logits, index).token, MustSample(params, logits, index).token);
    SamplingParams other = params;
    other.seed = 6;
    differs |= MustSample(params, logits, index).token != MustSample(other, logits, index).token;
  }
  EXPECT_TRUE(differs);
}

TEST(SamplerTest, PenaltiesFollowTheirFormulas) {
  TokenCounts counts;
  const uint32_t prompt[] = {0, 1, 99};
  counts.AddPrompt(prompt);
  counts.AddOutput(2);
  counts.AddOutput(2);
  std::vector<float> logits = {2, -2, 4, 1};
  ApplyPenalties({.repetition_penalty = 2, .presence_penalty = .5f, .frequency_penalty = .25f},
                 counts, absl::MakeSpan(logits));
  EXPECT_THAT(logits, ElementsAre(1, -4, 2 - .5f - .5f, 1));
}

TEST(SamplerTest, LogprobsAreTheModelsOwn) {
  TokenCounts counts;
  counts.AddOutput(1);
  const SamplingParams params = {.repetition_penalty = 10, .logprobs = 2};
  const std::vector<float> logits = {std::log(.3f), std::log(.6f), std::log(.1f)};
  const SampledToken sampled = MustSample(params, logits, 0, &counts);
  ASSERT_EQ(sampled.top.size(), 2u);
  EXPECT_EQ(sampled.top[0].first, 1u);
  EXPECT_NEAR(sampled.top[0].second, std::log(.6f), 1e-5);
  EXPECT_EQ(sampled.top[1].first, 0u);
  EXPECT_EQ(sampled.token, 0u) << "the penalty made token 1 the lesser";
  EXPECT_NEAR(sampled.logprob, std::log(.3f), 1e-5);
}

TEST(SamplerTest, UniformIsPhilox) {
  // Known answer of Philox 4x32-10 for counter 0 and key 0: 6627e8d5 e169c58d ...
  EXPECT_EQ(Uniform01(0, 0), static_cast<double>(0x6627e8d5e169c58dULL >> 11) * 0x1p-53);
}

TEST(SamplerTest, ValidationNamesTheField) {
  EXPECT_TRUE(ValidateSampling({.temperature = 1, .top_p = .5f}).ok());
  EXPECT_THAT(ValidateSampling({.temperature = -1}).message(), HasSubstr("temperature"));
  EXPECT_THAT(ValidateSampling({.temperature = std::nanf("")}).message(), HasSubstr("temperature"));
  EXPECT_THAT(ValidateSampling({.top_p = 0}).message(), HasSubstr("top_p"));
  EXPECT_THAT(ValidateSampling({.min_p = 1.5f}).message(), HasSubstr("min_p"));
  EXPECT_THAT(ValidateSampling({.repetition_penalty = 0}).message(), HasSubstr("repetition"));
  EXPECT_THAT(ValidateSampling({.presence_penalty = 3}).message(), HasSubstr("presence"));
  EXPECT_THAT(ValidateSampling({.logprobs = 21}).message(), HasSubstr("logprobs"));
}

}  // namespace
}  // namespace troupe
