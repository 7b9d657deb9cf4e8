// Resharding in simulation: the real FleetActor, SchedulerActor, JobActors and ReshardActor, with
// simulated ranks, network and disk, 64 live streams, and a kill of every rank and of the
// coordinator at every step of every change. Everything that happens to a change is an event, and
// events have numbers: a run without kills counts them, then each (victim, number) is one run. A
// failure prints scenario, victim and number; TROUPE_RESHARD_CASE="scenario victim number" replays
// that run alone.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "coordinator/testing/reshard_run.h"

namespace troupe {
namespace {

using testing::ReshardRun;
using testing::Scenario;
using testing::SimDisk;

constexpr Scenario kScenarios[] = {
    {"tp2-to-ep2", 2, "tp2", "dp2 ep", true},
    {"ep2-to-tp2", 2, "dp2 ep", "tp2", false},
    {"grow", 4, "dp2 ep", "dp4 ep", false},
    {"shrink", 4, "dp4 ep +8", "dp2 ep", true},
    {"grow-from-peers", 4, "dp2 ep", "dp4 ep", true, 0, false, /*have_weights=*/2},
    {"hot-experts", 2, "dp2 ep", "dp2 ep +2", true, 0, /*by_load=*/true},
};

std::string LayoutOf(const SimDisk& disk) {
  return NameOf(FromProto(*disk.Record().decided)->layout);
}

class ReshardSim : public ::testing::TestWithParam<Scenario> {
 protected:
  void SetUp() override { SetLogLevel(LogLevel::kOff); }
};

TEST_P(ReshardSim, ChangesUnderLoad) {
  ReshardRun run(GetParam(), "", 0);
  run.Run();
  ASSERT_TRUE(run.outcome().has_value());
  ASSERT_EQ(run.outcome()->status(), absl::OkStatus());
  EXPECT_EQ(LayoutOf(run.disk()), NameOf(ParseLayout(GetParam().to).value()));
  EXPECT_GT((*run.outcome())->epoch(), run.old_epoch());
  EXPECT_EQ(run.ranks().last_step_epoch(), (*run.outcome())->epoch()) << "streams went on";
  const v1::ReshardOutcome& outcome = **run.outcome();
  uint64_t peers = 0;
  uint64_t disk = 0;
  for (const v1::RankMove& move : run.plan().ranks()) {
    uint64_t reads = 0;
    for (const v1::PeerRead& read : move.reads()) reads += read.bytes();
    EXPECT_EQ(reads, move.peer_bytes()) << move.worker();
    peers += move.peer_bytes();
    disk += move.disk_bytes();
    EXPECT_TRUE(move.disk_bytes() == 0 || !run.ranks().at(move.worker()).lacks_weights());
  }
  EXPECT_EQ(outcome.peer_bytes(), peers) << "ranks read what the plan said";
  EXPECT_EQ(outcome.disk_bytes(), disk);
  RecordProperty("events", static_cast<int>(run.events()));
  RecordProperty("longest_stall_us", static_cast<int>(run.longest_stall_us()));
}

TEST_P(ReshardSim, AnyKillAtAnyStepLeavesOneLayoutAndAllTokens) {
  std::string only_victim;
  uint64_t only_number = 0;
  if (const char* only = std::getenv("TROUPE_RESHARD_CASE")) {
    std::istringstream words(only);
    std::string scenario;
    words >> scenario >> only_victim >> only_number;
    if (scenario != GetParam().name) GTEST_SKIP();
  }
  ReshardRun calm(GetParam(), "", 0);
  calm.Run();
  std::vector<std::string> victims = {"coordinator"};
  for (int i = 0; i < GetParam().machines; ++i) victims.push_back(absl::StrCat("w", i));
  const std::string to = NameOf(ParseLayout(GetParam().to).value());
  const std::string from = NameOf(ParseLayout(GetParam().from).value());
  uint64_t runs = 0;
  uint64_t old_layout = 0;
  uint64_t new_layout = 0;
  for (const std::string& victim : victims) {
    if (!only_victim.empty() && victim != only_victim) continue;
    for (uint64_t number = 1; number <= calm.events(); ++number) {
      if (only_number != 0 && number != only_number) continue;
      SCOPED_TRACE(absl::StrCat("TROUPE_RESHARD_CASE=\"", GetParam().name, " ", victim, " ", number,
                                "\", at: ", calm.trace()[number - 1]));
      ReshardRun run(GetParam(), victim, number);
      run.Run();
      EXPECT_TRUE(run.killed());
      const std::string layout = LayoutOf(run.disk());
      old_layout += layout == from ? 1 : 0;
      new_layout += layout == to ? 1 : 0;
      // Without a rank the survivors form another; a coordinator's death loses none.
      EXPECT_TRUE(victim != "coordinator" || layout == from || layout == to) << layout;
      ++runs;
      if (HasFailure()) {
        for (const std::string& what : run.trace()) std::cerr << "  " << what << "\n";
        return;
      }
    }
  }
  RecordProperty("runs", static_cast<int>(runs));
  RecordProperty("old_layout", static_cast<int>(old_layout));
  RecordProperty("new_layout", static_cast<int>(new_layout));
  if (only_number != 0) return;
  EXPECT_GT(old_layout, 0u);
  EXPECT_GT(new_layout, 0u);
}

INSTANTIATE_TEST_SUITE_P(Layouts, ReshardSim, ::testing::ValuesIn(kScenarios),
                         [](const auto& info) {
                           std::string name = info.param.name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(ReshardSimulation, ARankThatHoldsSomethingElseRollsBack) {
  SetLogLevel(LogLevel::kOff);
  ReshardRun run(kScenarios[0], "", 0);
  run.ranks().at("w1").LoseAPart();  // of the first layout: it is formed at the second attempt
  run.Run();
  ASSERT_EQ(run.outcome()->status(), absl::OkStatus());
  EXPECT_EQ(run.old_epoch(), 2u);
}

// Both ways to see it: against the rank that serves the same weights, and by the sum of pieces that
// nobody serves as they are.
TEST(ReshardSimulation, ARankThatReadDamagedWeightsRollsBack) {
  SetLogLevel(LogLevel::kOff);
  for (const auto& [scenario, what] :
       {std::pair(Scenario{"copies", 4, "dp2 ep", "dp4 ep", false}, "with which rank w"),
        std::pair(Scenario{"sums", 4, "tp2", "tp4", false}, "adds up to digest")}) {
    SCOPED_TRACE(scenario.name);
    ReshardRun run(scenario, "", 0);
    run.ranks().at("w3").DamageAPart();
    run.Run();
    ASSERT_TRUE(absl::IsAborted(run.outcome()->status())) << run.outcome()->status();
    EXPECT_THAT(run.outcome()->status().message(), ::testing::HasSubstr(what));
    EXPECT_THAT(run.outcome()->status().message(), ::testing::HasSubstr("w3"));
    EXPECT_THAT(run.outcome()->status().message(),
                ::testing::HasSubstr("rolled back, the old layout stays"));
    EXPECT_EQ(run.disk().Record().decided->epoch(), run.old_epoch());
  }
}

// Though it read nothing of what differs: before the decision, and also by a coordinator that knows
// the model from its log alone.
TEST(ReshardSimulation, ARankWithAnotherModelRollsBack) {
  SetLogLevel(LogLevel::kOff);
  for (const bool restarts : {false, true}) {
    SCOPED_TRACE(restarts);
    ReshardRun run(kScenarios[2], "", 0);
    run.ranks().at("w3").HasModel("another");
    run.restart_before = restarts;
    run.Run();
    ASSERT_TRUE(absl::IsAborted(run.outcome()->status())) << run.outcome()->status();
    EXPECT_THAT(run.outcome()->status().message(),
                ::testing::AllOf(
                    ::testing::HasSubstr("rolled back, the old layout stays: rank w3 has prepared "
                                         "another model: found identity 616e6f74686572, wanted "
                                         "6964656e74697479"),
                    ::testing::HasSubstr(restarts ? "was decided" : "with which rank w")));
    EXPECT_EQ(run.disk().Record().decided->epoch(), run.old_epoch());
    EXPECT_EQ(run.disk().Record().decided->identity(), testing::kIdentity);
  }
}

TEST(ReshardSimulation, SkewedLoadsAreEvenAfterwards) {
  SetLogLevel(LogLevel::kOff);
  ReshardRun run(kScenarios[5], "", 0);
  run.Run();
  ASSERT_EQ(run.outcome()->status(), absl::OkStatus());
  RecordProperty("balance", absl::StrCat(run.plan().balance_before().mean(), " -> ",
                                         run.plan().balance_after().mean()));
  EXPECT_GT(run.plan().balance_before().mean(), 1.8);
  EXPECT_LT(run.plan().balance_after().mean(), 1.1);
  EXPECT_EQ(run.plan().layers_left(), 0u);
  // What the ranks of the new map count says the same.
  EXPECT_NEAR(run.observed_balance(), run.plan().balance_after().mean(), 1e-6);
}

TEST(ReshardSimulation, SkewedLoadsBecomeEvenByThemselves) {
  SetLogLevel(LogLevel::kOff);
  for (const double above : {0.0, 1.3, 4.0}) {
    SCOPED_TRACE(above);
    ReshardRun run({"alone", 2, "dp2 ep +2", "", true, 0, /*by_load=*/true}, "", 0);
    run.rebalance = {.above = above, .interval_ms = 20};
    run.RunByItself();
    const bool moves = above > 0 && above < 1.8;
    EXPECT_EQ(run.disk().Record().decided->epoch(), moves ? 2u : 1u) << "once at most";
    EXPECT_EQ(LayoutOf(run.disk()), NameOf(ParseLayout("dp2 ep +2").value()));
    if (moves) {
      EXPECT_LT(run.observed_balance(), 1.1);
    } else {
      EXPECT_GT(run.observed_balance(), 1.3);
    }
  }
}

// Who has no weights cannot join once nobody is left to read from.
TEST(ReshardSimulation, ARankWithoutWeightsNeedsAPeer) {
  SetLogLevel(LogLevel::kOff);
  ReshardRun run({"alone", 3, "tp1", "dp2 ep", false, 0, false, /*have_weights=*/1}, "", 0);
  run.Run();
  ASSERT_EQ(run.outcome()->status(), absl::OkStatus());
  EXPECT_GT((*run.outcome())->peer_bytes(), 0u);
  EXPECT_EQ((*run.outcome())->disk_bytes(), 0u);
}

TEST(ReshardSimulation, ADeadlineRollsBack) {
  SetLogLevel(LogLevel::kOff);
  ReshardRun run({"slow", 2, "tp2", "dp2 ep", false, /*bytes_per_us=*/4}, "", 0);
  run.deadline_ms = 10;
  run.Run();
  ASSERT_TRUE(absl::IsAborted(run.outcome()->status())) << run.outcome()->status();
  EXPECT_THAT(run.outcome()->status().message(),
              ::testing::HasSubstr("rolled back, the old layout stays"));
  EXPECT_EQ(run.disk().Record().decided->epoch(), run.old_epoch());
}

TEST(ReshardSimulation, NothingToChangeIsAnError) {
  SetLogLevel(LogLevel::kOff);
  ReshardRun run({"same", 2, "tp2", "tp2", false}, "", 0);
  run.Run();
  EXPECT_TRUE(absl::IsInvalidArgument(run.outcome()->status())) << run.outcome()->status();
}

TEST(ReshardSimulation, ASeedReplaysItsRun) {
  SetLogLevel(LogLevel::kOff);
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    ReshardRun first(kScenarios[2], "w1", 20, seed);
    first.Run();
    ReshardRun second(kScenarios[2], "w1", 20, seed);
    second.Run();
    EXPECT_EQ(first.trace_hash(), second.trace_hash()) << "seed " << seed;
    EXPECT_EQ(first.trace(), second.trace());
  }
}

}  // namespace
}  // namespace troupe
