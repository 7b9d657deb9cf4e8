#include "coordinator/step_cutter.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;

// Steps and answer when every piece of `length` bytes is a token.
std::pair<std::vector<std::string>, std::string> Cut(std::string_view text, size_t length) {
  StepCutter cutter;
  std::vector<std::string> steps;
  auto take = [&](const std::vector<StepCutter::Step>& found) {
    for (const auto& step : found) {
      EXPECT_EQ(step.index, steps.size());
      EXPECT_GE(step.token_count, 1u);
      steps.push_back(step.text);
    }
  };
  uint32_t token = 0;
  for (size_t at = 0; at < text.size(); at += length) {
    take(cutter.Push(text.substr(at, length), token++));
  }
  take(cutter.Flush());
  EXPECT_EQ(cutter.steps(), steps.size());
  return {steps, cutter.answer()};
}

TEST(StepCutterTest, LinesOfTheReasoningAreSteps) {
  const std::string text = "<think>\n1+1=2\n\n 2*3=6 \n</think>\nThe answer is 6.\n";
  for (size_t length = 1; length <= text.size(); ++length) {
    auto [steps, answer] = Cut(text, length);
    EXPECT_THAT(steps, ElementsAre("1+1=2", "2*3=6"));
    EXPECT_EQ(answer, "The answer is 6.");
  }
}

TEST(StepCutterTest, WithoutReasoningAllIsTheAnswer) {
  auto [steps, answer] = Cut(" Hello.\nHow are you? ", 3);
  EXPECT_TRUE(steps.empty());
  EXPECT_EQ(answer, "Hello.\nHow are you?");
}

TEST(StepCutterTest, AStepMayEndWithTheReasoningOrTheOutput) {
  EXPECT_THAT(Cut("<think>a=1</think>b", 1).first, ElementsAre("a=1"));
  auto [steps, answer] = Cut("<think>\na=1\nb=", 2);
  EXPECT_THAT(steps, ElementsAre("a=1", "b="));
  EXPECT_EQ(answer, "");
}

TEST(StepCutterTest, AStepSpansTheTokensThatTouchIt) {
  StepCutter cutter;
  EXPECT_TRUE(cutter.Push("<think>", 0).empty());
  EXPECT_TRUE(cutter.Push("\n", 1).empty());
  EXPECT_TRUE(cutter.Push("1+", 2).empty());
  auto steps = cutter.Push("1=2\n3", 3);
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_EQ(steps[0].first_token, 2u);
  EXPECT_EQ(steps[0].token_count, 2u);
  steps = cutter.Push("*3=9\n", 4);
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_EQ(steps[0].first_token, 3u);
  EXPECT_EQ(steps[0].token_count, 2u);
  EXPECT_EQ(steps[0].text, "3*3=9");
}

}  // namespace
}  // namespace troupe
