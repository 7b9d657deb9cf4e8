// Plans of homes become steps of all ranks, and results of all ranks results of homes.

#include "coordinator/joint_steps.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kEpoch = 7;

v1::Layout MakeLayout(uint32_t tp, uint32_t dp, uint32_t pp) {
  v1::Layout layout;
  layout.set_tp(tp);
  layout.set_dp(dp);
  layout.set_pp(pp);
  return layout;
}

v1::StepPlan MakePlan(uint64_t step, const std::vector<uint32_t>& counts) {
  v1::StepPlan plan;
  plan.set_epoch(kEpoch);
  plan.set_step(step);
  for (const uint32_t count : counts) plan.add_row_count(count);
  return plan;
}

v1::StepResult MakeResult(uint64_t step) {
  v1::StepResult result;
  result.set_epoch(kEpoch);
  result.set_step(step);
  return result;
}

TEST(JointSteps, KnowsWhoseHomeARankIs) {
  const JointSteps steps(MakeLayout(2, 3, 2), kEpoch);
  std::vector<int> homes;
  for (int rank = 0; rank < steps.ranks(); ++rank) homes.push_back(steps.HomeOf(rank));
  EXPECT_THAT(homes, ElementsAre(0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2));
}

TEST(JointSteps, AHomeWithoutWorkJoinsTheStep) {
  JointSteps steps(MakeLayout(1, 3, 1), kEpoch);
  const auto joined = steps.Join({MakePlan(5, {3, 4}), std::nullopt, MakePlan(9, {1})}, 0);
  ASSERT_EQ(joined.size(), 3u);
  for (const v1::StepPlan& plan : joined) {
    EXPECT_EQ(plan.step(), 1u);
    EXPECT_EQ(plan.epoch(), kEpoch);
    EXPECT_THAT(plan.home_tokens(), ElementsAre(7, 0, 1));
  }
  EXPECT_EQ(joined[0].row_count_size(), 2);
  EXPECT_EQ(joined[1].row_count_size(), 0);
}

TEST(JointSteps, ResultsComeOutOnceAllRanksAnswered) {
  JointSteps steps(MakeLayout(1, 2, 1), kEpoch);
  steps.Join({MakePlan(5, {1}), std::nullopt}, 100);
  steps.Join({std::nullopt, MakePlan(1, {1})}, 200);
  EXPECT_EQ(steps.in_flight(), 2u);
  EXPECT_EQ(steps.OldestSentUs(), 100);
  EXPECT_FALSE(steps.Add(0, MakeResult(1))->has_value());
  EXPECT_FALSE(steps.Add(0, MakeResult(2))->has_value());
  EXPECT_THAT(steps.Missing(), ElementsAre(1));
  auto first = steps.Add(1, MakeResult(1));
  ASSERT_TRUE(first.ok() && first->has_value());
  EXPECT_EQ((**first)[0]->step(), 5u);
  EXPECT_FALSE((**first)[1].has_value());
  auto second = steps.Add(1, MakeResult(2));
  ASSERT_TRUE(second.ok() && second->has_value());
  EXPECT_FALSE((**second)[0].has_value());
  EXPECT_EQ((**second)[1]->step(), 1u);
  EXPECT_EQ(steps.in_flight(), 0u);
  EXPECT_THAT(steps.Missing(), IsEmpty());
  EXPECT_EQ(steps.answered(1), 2u);
}

TEST(JointSteps, AResultIsMadeOfAllRanks) {
  // Ranks 0 and 1 are the first stage, 2 and 3 the last.
  JointSteps steps(MakeLayout(2, 1, 2), kEpoch);
  steps.Join({MakePlan(1, {1, 1})}, 0);
  std::optional<JointSteps::Results> results;
  for (int rank = 0; rank < 4; ++rank) {
    v1::StepResult part = MakeResult(1);
    part.add_row_heads_skipped(1 + rank);
    part.add_row_heads_skipped(10);
    part.add_expert_tokens(rank < 2 ? 4 : 0);
    part.add_expert_tokens(rank < 2 ? 0 : 6);
    part.set_forward_us(100 * (rank == 1 ? 9 : rank));
    if (rank >= 2) {
      part.add_sampled_slot(3);
      part.add_sampled_token(42);
    }
    if (rank == 3) part.add_failed_slot(3);
    auto added = steps.Add(rank, part);
    ASSERT_TRUE(added.ok()) << added.status();
    results = *std::move(added);
  }
  ASSERT_TRUE(results.has_value());
  const v1::StepResult& result = *(*results)[0];
  EXPECT_THAT(result.row_heads_skipped(), ElementsAre(4, 20));
  EXPECT_THAT(result.expert_tokens(), ElementsAre(4, 6));
  EXPECT_THAT(result.sampled_token(), ElementsAre(42));
  EXPECT_THAT(result.failed_slot(), ElementsAre(3));
  EXPECT_EQ(result.forward_us(), 900u);
}

TEST(JointSteps, RanksThatSampleDifferentlyAreFound) {
  JointSteps steps(MakeLayout(2, 1, 1), kEpoch);
  steps.Join({MakePlan(1, {1})}, 0);
  v1::StepResult part = MakeResult(1);
  part.add_sampled_slot(0);
  part.add_sampled_token(1);
  ASSERT_TRUE(steps.Add(0, part).ok());
  part.set_sampled_token(0, 2);
  const auto added = steps.Add(1, part);
  EXPECT_EQ(added.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(added.status().message()), HasSubstr("ranks 0 and 1"));
}

TEST(JointSteps, ATransferEndsWithItsLastRankAndAsTheWorst) {
  JointSteps steps(MakeLayout(2, 2, 1), kEpoch);
  const auto run = [&](bool work, int rank_that_ends, v1::TransferDone::Outcome outcome) {
    JointSteps::Plans plans(2);
    if (work) plans[0] = MakePlan(1, {1});
    steps.Join(std::move(plans), 0);
    JointSteps::Results results;
    for (int rank = 0; rank < 4; ++rank) {
      v1::StepResult part = MakeResult(steps.steps());
      if (rank == rank_that_ends) {
        part.add_transfers()->set_id(77);
        part.mutable_transfers(0)->set_outcome(outcome);
        part.mutable_transfers(0)->set_bytes(10);
      }
      auto added = steps.Add(rank, part);
      EXPECT_TRUE(added.ok()) << added.status();
      if (added->has_value()) results = **std::move(added);
    }
    return results;
  };
  EXPECT_EQ(run(true, 0, v1::TransferDone::OUTCOME_MISS)[0]->transfers_size(), 0);
  // The other rank ends it beside an idle step: it is told with the next plan's result.
  EXPECT_FALSE(run(false, 1, v1::TransferDone::OUTCOME_DONE)[0].has_value());
  const auto results = run(true, -1, v1::TransferDone::OUTCOME_DONE);
  ASSERT_EQ(results[0]->transfers_size(), 1);
  EXPECT_EQ(results[0]->transfers(0).outcome(), v1::TransferDone::OUTCOME_MISS);
  EXPECT_EQ(results[0]->transfers(0).bytes(), 20u);
}

TEST(JointSteps, ResultsOutOfPlaceAreRefused) {
  JointSteps steps(MakeLayout(1, 2, 1), kEpoch);
  EXPECT_THAT(std::string(steps.Add(1, MakeResult(1)).status().message()),
              HasSubstr("rank 1: result of step 1 answers no plan"));
  steps.Join({MakePlan(1, {1}), std::nullopt}, 0);
  EXPECT_THAT(std::string(steps.Add(1, MakeResult(2)).status().message()),
              HasSubstr("step 1 was awaited"));
  v1::StepResult old = MakeResult(1);
  old.set_epoch(kEpoch - 1);
  EXPECT_THAT(std::string(steps.Add(1, old).status().message()), HasSubstr("epoch 6"));
}

}  // namespace
}  // namespace troupe
