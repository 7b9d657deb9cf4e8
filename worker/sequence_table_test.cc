#include "worker/sequence_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "kernels/embed/embed.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint32_t kVocab = 16;

v1::NewSequence Sequence(uint32_t slot, const std::vector<uint32_t>& tokens, uint32_t prompt) {
  v1::NewSequence sequence;
  sequence.set_slot(slot);
  sequence.mutable_tokens()->Add(tokens.begin(), tokens.end());
  sequence.set_prompt_tokens(prompt);
  sequence.mutable_sampling()->set_temperature(0);
  sequence.mutable_sampling()->set_seed(3);
  return sequence;
}

class SequenceTableTest : public ::testing::Test {
 protected:
  absl::StatusOr<SequenceTable::Row> NextRow(uint32_t slot, uint32_t start, uint32_t count) {
    table_.BeginStep();
    SequenceTable::Row row;
    const absl::Status status = table_.TakeRow(slot, start, count, row);
    if (!status.ok()) return status;
    return row;
  }
  SequenceTable::Drawn Draw(uint32_t slot, SampleRule& rule) {
    SequenceTable::Drawn drawn;
    table_.DrawNext(slot, rule, drawn);
    return drawn;
  }
  absl::StatusOr<uint32_t> Sample(uint32_t slot, uint32_t best) {
    std::vector<float> logits(kVocab, 0);
    logits[best] = 1;
    const auto sampled = table_.SampleNext(slot, absl::MakeSpan(logits), scratch_);
    if (!sampled.ok()) return sampled.status();
    return sampled->token;
  }

  SequenceTable table_{{.slots = 2, .vocab_size = kVocab, .max_context = 6}};
  SamplerScratch scratch_;
};

TEST_F(SequenceTableTest, KnowsASampledTokenInTheNextStep) {
  ASSERT_TRUE(table_.Add(Sequence(1, {4, 5, 6}, 3)).ok());
  auto row = NextRow(1, 0, 2);
  ASSERT_TRUE(row.ok()) << row.status();
  EXPECT_THAT(row->tokens, ElementsAre(4, 5));
  EXPECT_FALSE(row->samples);
  row = NextRow(1, 2, 1);
  ASSERT_TRUE(row.ok()) << row.status();
  EXPECT_TRUE(row->samples);
  EXPECT_EQ(*Sample(1, 9), 9U);
  row = NextRow(1, 3, 1);
  ASSERT_TRUE(row.ok()) << row.status();
  EXPECT_THAT(row->tokens, ElementsAre(9));
  EXPECT_TRUE(row->samples);
}

TEST_F(SequenceTableTest, ATokenDrawnOnTheDeviceIsNamedByItsSlotUntilItIsSettled) {
  v1::NewSequence sequence = Sequence(1, {4, 5}, 1);
  sequence.mutable_sampling()->set_temperature(0.5F);
  sequence.mutable_sampling()->set_top_k(7);
  ASSERT_TRUE(table_.Add(sequence).ok());
  ASSERT_TRUE(NextRow(1, 0, 2).ok());
  ASSERT_TRUE(table_.FitsDevice(1));
  SampleRule rule;
  const SequenceTable::Drawn first = Draw(1, rule);
  EXPECT_EQ(rule.slot, 1U);
  EXPECT_EQ(rule.seed, 3U);
  EXPECT_EQ(rule.output_index, 1U);
  EXPECT_EQ(rule.temperature, 0.5F);
  EXPECT_EQ(rule.top_k, 7U);
  EXPECT_THAT(NextRow(1, 2, 1)->tokens, ElementsAre(kLastTokenOf | 1));
  const SequenceTable::Drawn second = Draw(1, rule);
  EXPECT_EQ(rule.output_index, 2U);
  table_.Settle(first, 9);
  table_.Settle(second, 8);
  EXPECT_THAT(NextRow(1, 3, 1)->tokens, ElementsAre(8));
}

TEST_F(SequenceTableTest, WhatWasDrawnForASequenceThatIsOverIsForgotten) {
  ASSERT_TRUE(table_.Add(Sequence(0, {4}, 1)).ok());
  ASSERT_TRUE(NextRow(0, 0, 1).ok());
  SampleRule rule;
  const SequenceTable::Drawn drawn = Draw(0, rule);
  ASSERT_TRUE(table_.Finish(0).ok());
  table_.Settle(drawn, 9);
  ASSERT_TRUE(table_.Add(Sequence(0, {5, 6}, 2)).ok());
  table_.Settle(drawn, 9);
  EXPECT_THAT(NextRow(0, 0, 2)->tokens, ElementsAre(5, 6));
}

TEST_F(SequenceTableTest, PenaltiesAndLogprobsAreNotForTheDevice) {
  v1::NewSequence sequence = Sequence(0, {4}, 1);
  sequence.mutable_sampling()->set_logprobs(0);
  ASSERT_TRUE(table_.Add(sequence).ok());
  EXPECT_FALSE(table_.FitsDevice(0));
  sequence = Sequence(1, {4}, 1);
  sequence.mutable_sampling()->set_presence_penalty(0.5F);
  ASSERT_TRUE(table_.Add(sequence).ok());
  EXPECT_FALSE(table_.FitsDevice(1));
}

TEST_F(SequenceTableTest, ARowThatJoinsAReusedPrefixMayBeginBehindIt) {
  ASSERT_TRUE(table_.Add(Sequence(0, {1, 2, 3, 4}, 4)).ok());
  EXPECT_TRUE(NextRow(0, 2, 1).ok());
  const auto gap = NextRow(0, 2, 1);
  EXPECT_THAT(gap.status().message(), HasSubstr("row_start of slot 0: found 2, wanted 3"));
}

TEST_F(SequenceTableTest, EndsAtTheContext) {
  ASSERT_TRUE(table_.Add(Sequence(0, {1, 2, 3, 4, 5, 6}, 6)).ok());
  ASSERT_TRUE(NextRow(0, 0, 6).ok());
  ASSERT_TRUE(Sample(0, 1).ok());
  EXPECT_THAT(NextRow(0, 6, 1).status().message(), HasSubstr("a context of 6"));
}

TEST_F(SequenceTableTest, PenaltiesCountWhatWasGeneratedBeforeAMove) {
  v1::NewSequence sequence = Sequence(0, {1, 7, 7}, 1);
  sequence.mutable_sampling()->set_frequency_penalty(2);
  ASSERT_TRUE(table_.Add(sequence).ok());
  ASSERT_TRUE(NextRow(0, 0, 3).ok());
  // Token 7 would win by 1, but has occurred twice in the output.
  EXPECT_EQ(*Sample(0, 7), 0U);
}

TEST_F(SequenceTableTest, DamagedLogitsFailOnlyTheirRow) {
  ASSERT_TRUE(table_.Add(Sequence(0, {1}, 1)).ok());
  ASSERT_TRUE(table_.Add(Sequence(1, {1}, 1)).ok());
  table_.BeginStep();
  SequenceTable::Row row;
  ASSERT_TRUE(table_.TakeRow(0, 0, 1, row).ok());
  ASSERT_TRUE(table_.TakeRow(1, 0, 1, row).ok());
  std::vector<float> damaged(kVocab, std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(table_.SampleNext(0, absl::MakeSpan(damaged), scratch_).status().code(),
            absl::StatusCode::kInternal);
  EXPECT_EQ(*Sample(1, 5), 5U);
  // A plan that is on its way counts on a token.
  EXPECT_TRUE(NextRow(0, 1, 1).ok());
}

TEST_F(SequenceTableTest, NamesWhatIsWrongWithASequence) {
  EXPECT_THAT(table_.Add(Sequence(2, {1}, 1)).message(), HasSubstr("slot 2, wanted less than 2"));
  EXPECT_THAT(table_.Add(Sequence(0, {}, 0)).message(), HasSubstr("tokens of slot 0: found 0"));
  EXPECT_THAT(table_.Add(Sequence(0, {1, 1, 1, 1, 1, 1, 1}, 1)).message(),
              HasSubstr("tokens of slot 0: found 7"));
  EXPECT_THAT(table_.Add(Sequence(0, {1}, 2)).message(), HasSubstr("prompt_tokens of slot 0"));
  EXPECT_THAT(table_.Add(Sequence(0, {1, kVocab}, 2)).message(), HasSubstr("token 16"));
  v1::NewSequence sequence = Sequence(0, {1}, 1);
  sequence.mutable_gate()->set_adaptive_mass(std::numeric_limits<float>::quiet_NaN());
  EXPECT_THAT(table_.Add(sequence).message(), HasSubstr("gate of slot 0"));
  sequence = Sequence(0, {1}, 1);
  sequence.mutable_sampling()->clear_seed();
  EXPECT_THAT(table_.Add(sequence).message(), HasSubstr("no seed"));
  EXPECT_EQ(table_.live(), 0U);
}

TEST_F(SequenceTableTest, FinishedSlotsAreFree) {
  ASSERT_TRUE(table_.Add(Sequence(0, {1}, 1)).ok());
  EXPECT_EQ(table_.live(), 1U);
  EXPECT_TRUE(table_.Finish(0).ok());
  EXPECT_EQ(table_.Finish(0).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(NextRow(0, 0, 1).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(table_.Add(Sequence(0, {2}, 1)).ok());
}

}  // namespace
}  // namespace troupe
