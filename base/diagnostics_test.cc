// Checks, log lines, statuses and ids: what people and callers see of them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <unordered_set>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/cord.h"
#include "base/check.h"
#include "base/ids.h"
#include "base/log.h"
#include "base/status_util.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::IsEmpty;
using ::testing::MatchesRegex;

enum class Color { kRed = 3, kBlue = 4 };

TEST(CheckDeathTest, SaysWhereWhatAndWhy) {
  const int pages_free = 3;
  EXPECT_DEATH(CHECK(pages_free > 4) << "sequence " << 17,
               "diagnostics_test.cc:[0-9]+ CHECK\\(pages_free > 4\\) failed sequence 17");
  EXPECT_DEATH(CHECK_EQ(pages_free, 4) << "sequence 17",
               "CHECK_EQ\\(pages_free, 4\\) \\(3 vs 4\\) failed sequence 17");
  EXPECT_DEATH(CHECK_NE(Color::kRed, Color::kRed), "\\(3 vs 3\\)");
  EXPECT_DEATH(CHECK_LT(std::string("b"), "a"), "\\(b vs a\\)");
  EXPECT_DEATH(CHECK_NE(static_cast<int*>(nullptr), nullptr), "vs nullptr");
  EXPECT_DEATH(CHECK_OK(absl::NotFoundError("no such page")), "NOT_FOUND: no such page");
  EXPECT_DEATH(CHECK_OK(absl::StatusOr<int>(absl::AbortedError("late"))), "ABORTED: late");
}

TEST(CheckTest, EvaluatesOnceAndPassesQuietly) {
  int count = 0;
  CHECK(++count == 1) << "never";
  CHECK_EQ(++count, 2) << "never";
  CHECK_LE(++count, 3);
  CHECK_OK(absl::OkStatus());
  // NOLINTBEGIN(google-readability-braces-around-statements): a check is one statement.
  if (count == 3)
    CHECK_GE(count, 3);
  else
    CHECK(false);
  // NOLINTEND(google-readability-braces-around-statements)
  EXPECT_EQ(count, 3);
}

TEST(CheckDeathTest, DebugChecksFollowTheBuild) {
  int count = 0;
  DCHECK(++count > 0);
  DCHECK_EQ(++count, count);
#ifdef NDEBUG
  EXPECT_EQ(count, 0);
  DCHECK_EQ(1, 2);
#else
  EXPECT_EQ(count, 2);
  EXPECT_DEATH(DCHECK(1 > 2), "DCHECK\\(1 > 2\\)");
  EXPECT_DEATH(DCHECK_EQ(1, 2), "1 vs 2");
#endif
}

class LogTest : public ::testing::Test {
 protected:
  LogTest() {
    SetLogSink([this](std::string_view line) { lines_.emplace_back(line); });
  }
  ~LogTest() override {
    SetLogSink(nullptr);
    SetLogLevel(LogLevel::kInfo);
  }
  std::vector<std::string> lines_;
};

TEST_F(LogTest, OneLineWithTimeLevelPlaceAndFields) {
  LOG(WARNING) << "cache is slow" << Field("wait_ms", 12) << Field("path", "a \"b\"\n")
               << Field("empty", "");
  ASSERT_EQ(lines_.size(), 1u);
  EXPECT_THAT(lines_[0],
              MatchesRegex("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\\.[0-9]{6}Z WARNING "
                           "base/diagnostics_test.cc:[0-9]+ cache is slow wait_ms=12 .*"));
  EXPECT_THAT(lines_[0], EndsWith(" path=\"a \\\"b\\\"\\n\" empty=\"\"\n"));
}

TEST_F(LogTest, WhatIsUnderTheLevelIsNotEvaluated) {
  int count = 0;
  LOG(DEBUG) << ++count;
  EXPECT_THAT(lines_, IsEmpty());
  EXPECT_EQ(count, 0);
  SetLogLevel(LogLevel::kDebug);
  LOG(DEBUG) << ++count;
  EXPECT_EQ(lines_.size(), 1u);
  SetLogLevel(LogLevel::kOff);
  LOG(ERROR) << ++count;
  EXPECT_EQ(count, 1);
}

TEST(LogLevelTest, ParsesNames) {
  EXPECT_EQ(*ParseLogLevel("debug"), LogLevel::kDebug);
  EXPECT_EQ(*ParseLogLevel("Warning"), LogLevel::kWarning);
  EXPECT_EQ(*ParseLogLevel("off"), LogLevel::kOff);
  EXPECT_EQ(ParseLogLevel("loud").status().code(), absl::StatusCode::kInvalidArgument);
}

absl::StatusOr<int> HalfOf(int value) {
  if (value % 2 != 0) return absl::InvalidArgumentError("odd");
  return value / 2;
}

absl::StatusOr<int> QuarterOf(int value) {
  TROUPE_ASSIGN_OR_RETURN(int half, HalfOf(value));
  TROUPE_ASSIGN_OR_RETURN(half, HalfOf(half));
  return half;
}

absl::Status BothEven(int a, int b) {
  TROUPE_RETURN_IF_ERROR(HalfOf(a).status());
  TROUPE_RETURN_IF_ERROR(Annotate(HalfOf(b).status(), "second"));
  return absl::OkStatus();
}

TEST(StatusUtilTest, ErrorsLeaveTheFunction) {
  EXPECT_EQ(*QuarterOf(12), 3);
  EXPECT_EQ(QuarterOf(6).status().message(), "odd");
  EXPECT_TRUE(BothEven(2, 4).ok());
  EXPECT_EQ(BothEven(1, 4).message(), "odd");
  EXPECT_EQ(BothEven(2, 3).message(), "second: odd");
}

TEST(StatusUtilTest, AnnotateKeepsCodeAndPayload) {
  absl::Status status = absl::DataLossError("checksum");
  status.SetPayload("type/x", absl::Cord("payload"));
  const absl::Status annotated = Annotate(status, "block 7");
  EXPECT_EQ(annotated.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(annotated.message(), "block 7: checksum");
  EXPECT_EQ(annotated.GetPayload("type/x"), absl::Cord("payload"));
  EXPECT_TRUE(Annotate(absl::OkStatus(), "x").ok());
}

using JobId = StrongId<struct JobIdTag>;
using Rank = StrongId<struct RankTag, uint8_t>;
static_assert(!std::is_convertible_v<uint64_t, JobId> && !std::is_convertible_v<JobId, uint64_t>);
static_assert(!std::is_constructible_v<Rank, JobId>);

TEST(StrongIdTest, ComparesHashesAndPrints) {
  EXPECT_LT(JobId(1), JobId(2));
  EXPECT_EQ(absl::flat_hash_set<JobId>({JobId(1), JobId(1), JobId(2)}).size(), 2u);
  EXPECT_EQ(std::unordered_set<Rank>({Rank(1), Rank(1)}).size(), 1u);
  std::ostringstream out;
  out << Rank(65) << " " << JobId(7).ToString();
  EXPECT_EQ(out.str(), "65 7");
  IdSequence<JobId> ids;
  EXPECT_THAT((std::vector{ids.Next(), ids.Next()}), ElementsAre(JobId(1), JobId(2)));
}

}  // namespace
}  // namespace troupe
