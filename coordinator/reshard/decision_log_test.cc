#include "coordinator/reshard/decision_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/thread_executor.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

v1::ShardMap Map(uint64_t epoch, uint32_t tp) {
  v1::ShardMap map;
  map.set_epoch(epoch);
  map.mutable_layout()->set_tp(tp);
  map.add_first_layer(0);
  for (uint32_t r = 0; r < tp; ++r) map.add_members()->set_worker(absl::StrCat("w ", r, "\n"));
  map.add_layers()->add_experts()->add_ranks(0);
  return map;
}

std::string Log() {
  return DecisionLine(DecisionKind::kBegin, Map(3, 2)) +
         DecisionLine(DecisionKind::kDecide, Map(3, 2)) +
         DecisionLine(DecisionKind::kBegin, Map(4, 4)) +
         DecisionLine(DecisionKind::kBegin, Map(5, 8));
}

TEST(DecisionLog, TheLastDecidedMapIsTheTruth) {
  size_t good = 0;
  const auto record = ReadDecisions(Log(), &good);
  ASSERT_EQ(record.status(), absl::OkStatus());
  EXPECT_EQ(good, Log().size());
  EXPECT_EQ(record->decided->SerializeAsString(), Map(3, 2).SerializeAsString());
  EXPECT_EQ(record->last_epoch, 5u);
  EXPECT_THAT(record->abandoned, HasSubstr("begin 5"));
  const auto empty = ReadDecisions("", &good);
  EXPECT_FALSE(empty->decided.has_value());
  EXPECT_EQ(empty->last_epoch, 0u);
}

// A crash may cut the last line anywhere: what was before it counts, and nothing of it.
TEST(DecisionLog, ALineCutShortDoesNotCount) {
  const std::string before = DecisionLine(DecisionKind::kDecide, Map(3, 2)) +
                             DecisionLine(DecisionKind::kBegin, Map(4, 4));
  const std::string last = DecisionLine(DecisionKind::kDecide, Map(4, 4));
  for (size_t bytes = 0; bytes <= last.size(); ++bytes) {
    size_t good = 0;
    const auto record = ReadDecisions(before + last.substr(0, bytes), &good);
    ASSERT_EQ(record.status(), absl::OkStatus()) << bytes;
    EXPECT_EQ(record->decided->epoch(), bytes == last.size() ? 4u : 3u);
    EXPECT_EQ(good, before.size() + (bytes == last.size() ? bytes : 0));
  }
}

TEST(DecisionLog, AnyOtherDamageIsAnError) {
  const std::string log = Log();
  for (size_t i = 0; i + 1 < log.size(); ++i) {
    std::string damaged = log;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    size_t good = 0;
    const auto record = ReadDecisions(damaged, &good);
    // Only a damaged end of the last line can look like a line cut short.
    if (record.ok()) {
      EXPECT_EQ(log[i], '\n') << i;
      continue;
    }
    EXPECT_TRUE(absl::IsDataLoss(record.status()));
    EXPECT_THAT(record.status().message(), HasSubstr("is damaged"));
  }
}

TEST(DecisionLog, AFileIsReadBackAfterARestart) {
  const std::string folder = absl::StrCat(::testing::TempDir(), "/decisions-", getpid());
  std::filesystem::create_directories(folder);
  const std::string path = folder + "/reshard.log";
  const auto run = [&](auto then) {
    ThreadExecutor executor({.name = "disk", .thread_count = 1});
    const std::unique_ptr<DecisionLog> log = OpenDecisionFile(path, &executor);
    std::promise<absl::StatusOr<DecisionRecord>> read;
    log->Read([&](absl::StatusOr<DecisionRecord> record) { read.set_value(std::move(record)); });
    const absl::StatusOr<DecisionRecord> record = read.get_future().get();
    EXPECT_EQ(record.status(), absl::OkStatus());
    then(*log, *record);
    executor.Shutdown();
  };
  const auto append = [](DecisionLog& log, DecisionKind kind, const v1::ShardMap& map) {
    std::promise<absl::Status> done;
    log.Append(kind, map, [&](absl::Status status) { done.set_value(std::move(status)); });
    EXPECT_EQ(done.get_future().get(), absl::OkStatus());
  };
  run([&](DecisionLog& log, const DecisionRecord& record) {
    EXPECT_FALSE(record.decided.has_value());
    append(log, DecisionKind::kBegin, Map(1, 2));
    append(log, DecisionKind::kDecide, Map(1, 2));
    append(log, DecisionKind::kBegin, Map(2, 4));
  });
  std::ofstream(path, std::ios::app) << "decide 2 {\"epo";  // a crash while writing
  run([&](DecisionLog& log, const DecisionRecord& record) {
    EXPECT_EQ(record.decided->epoch(), 1u);
    EXPECT_EQ(record.last_epoch, 2u);
    append(log, DecisionKind::kDecide, Map(3, 8));
  });
  run([&](DecisionLog&, const DecisionRecord& record) {
    EXPECT_EQ(record.decided->epoch(), 3u);
    EXPECT_EQ(record.abandoned, "");
  });
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace troupe
