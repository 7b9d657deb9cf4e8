#include "sharding/reshard_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "sharding/layout_rules.h"
#include "sharding/reshard_test_model.h"

namespace troupe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::MoeModel;

std::vector<std::string> Names(int count, int first = 0) {
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.push_back(absl::StrCat("w", first + i));
  return names;
}

RankMatch SameMachines(int old_world, int new_world) {
  return MatchRanks(Names(old_world), Names(new_world), std::vector<bool>(old_world, true));
}

ShardMap Map(const ModelDescription& model, const char* layout, uint64_t epoch) {
  return BuildShardMap(model, ParseLayout(layout).value(), epoch).value();
}

// What must hold of any plan: every rank ends with what the new map says, nothing is loaded that is
// there, peers hold what is read from them, and the sums are right.
void CheckPlan(const ModelDescription& model, const ShardMap& from, const ShardMap& to,
               const RankMatch& match, const ReshardPlan& plan) {
  std::map<int, int64_t> sent;
  for (const RankMove& move : plan.ranks) {
    std::set<WeightPart> had;
    if (move.old_rank != kNoRank) {
      for (const WeightPart& p : PartsOf(ShardOf(model, from, move.old_rank), false)) had.insert(p);
    }
    std::set<WeightPart> has = had;
    for (const WeightPart& part : move.drops) EXPECT_EQ(has.erase(part), 1u) << NameOf(part);
    EXPECT_EQ(std::vector<WeightPart>(has.begin(), has.end()), move.keeps);
    int64_t loaded = 0;
    for (const PartLoad& load : move.loads) {
      EXPECT_TRUE(has.insert(load.part).second) << NameOf(load.part);
      EXPECT_FALSE(had.contains(load.part)) << NameOf(load.part);
      EXPECT_EQ(load.bytes, BytesOf(NumbersOf(model, load.part), {}));
      loaded += load.bytes;
      if (load.from_old_rank == kNoRank) continue;
      EXPECT_TRUE(match.old_alive[load.from_old_rank]);
      const auto peer = PartsOf(ShardOf(model, from, load.from_old_rank), false);
      EXPECT_TRUE(std::find(peer.begin(), peer.end(), load.part) != peer.end());
      sent[load.from_old_rank] += load.bytes;
    }
    EXPECT_EQ(loaded, move.load_bytes());
    const std::vector<WeightPart> wanted = move.new_rank == kNoRank
                                               ? std::vector<WeightPart>()
                                               : PartsOf(ShardOf(model, to, move.new_rank), false);
    EXPECT_EQ(std::vector<WeightPart>(has.begin(), has.end()), wanted);
  }
  for (const RankMove& move : plan.ranks) {
    if (move.old_rank == kNoRank) continue;
    EXPECT_EQ(move.sent_bytes, sent[move.old_rank]);
  }
}

// A rank whose machine has no checkpoint reads all from ranks that have it, also what none of them
// holds as it is; without any the plan is refused.
TEST(ReshardPlan, RanksWithoutWeightsReadFromPeersAlone) {
  const ModelDescription model = MoeModel(3, 8);
  const ShardMap from = Map(model, "dp2 ep", 1);
  const ShardMap to = Map(model, "tp2 dp2 ep", 2);
  RankMatch match = SameMachines(2, 4);
  const auto plain = PlanReshard(model, &from, to, match, {}, {});
  ASSERT_EQ(plain.status(), absl::OkStatus());
  EXPECT_GT(plain->ranks[3].disk_bytes, 0) << "half of the heads are nowhere";
  match.new_lacks = {false, false, false, true};
  match.old_serves = {false, true};
  const auto plan = PlanReshard(model, &from, to, match, {}, {});
  ASSERT_EQ(plan.status(), absl::OkStatus());
  EXPECT_EQ(plan->ranks[3].disk_bytes, 0);
  EXPECT_EQ(plan->ranks[3].peer_bytes, plain->ranks[3].load_bytes());
  EXPECT_EQ(plan->ranks[2].load_bytes(), plain->ranks[2].load_bytes());
  for (const RankMove& move : plan->ranks) {
    for (const PartLoad& load : move.loads) EXPECT_NE(load.from_old_rank, 0) << "it serves nobody";
  }
  match.old_serves = {false, false};
  const absl::Status refused = PlanReshard(model, &from, to, match, {}, {}).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(refused));
  EXPECT_THAT(refused.message(),
              HasSubstr("rank 3 of tp2 dp2 pp1 ep has a machine without weights: "
                        "found 0 ranks"));
}

TEST(ReshardPlan, EndsWithTheNewMapBetweenAllLayouts) {
  const ModelDescription model = MoeModel(4, 8);
  const char* const kLayouts[] = {"tp1",        "tp2",       "tp4",       "dp2 ep",
                                  "dp4 ep",     "tp2 pp2",   "tp2 dp2",   "pp4",
                                  "tp2 dp2 ep", "dp4 ep +4", "dp2 pp2 ep"};
  const uint64_t seed = 4;
  SeededRandom random(seed);
  for (const char* a : kLayouts) {
    for (const char* b : kLayouts) {
      SCOPED_TRACE(absl::StrCat(a, " -> ", b, ", seed ", seed));
      const ShardMap from = Map(model, a, 1);
      const ShardMap to = Map(model, b, 2);
      RankMatch match = SameMachines(from.layout.world(), to.layout.world());
      // Some old ranks are gone, and then cannot be part of the new map as what they were.
      for (int r = 0; r < from.layout.world(); ++r) {
        if (random.Below(4) != 0) continue;
        match.old_alive[r] = false;
        std::replace(match.old_of_new.begin(), match.old_of_new.end(), r, kNoRank);
      }
      const auto plan = PlanReshard(model, &from, to, match, {}, {});
      if (std::string(a) == b && !plan.ok()) continue;
      ASSERT_EQ(plan.status(), absl::OkStatus());
      CheckPlan(model, from, to, match, *plan);
      if (HasFailure()) return;
    }
  }
}

TEST(ReshardPlan, LoadsFromPeersFirst) {
  const ModelDescription model = MoeModel(3, 8);
  const ShardMap from = Map(model, "dp2 ep", 1);
  const ShardMap to = Map(model, "dp4 ep", 2);
  const auto plan = PlanReshard(model, &from, to, SameMachines(2, 4), {}, {});
  ASSERT_EQ(plan.status(), absl::OkStatus());
  int64_t disk = 0;
  for (const RankMove& move : plan->ranks) disk += move.disk_bytes;
  // Growing by whole experts and whole attention needs no checkpoint.
  EXPECT_EQ(disk, 0);
  // Both old ranks send about as much.
  EXPECT_NEAR(static_cast<double>(plan->ranks[0].sent_bytes),
              static_cast<double>(plan->ranks[1].sent_bytes),
              0.3 * static_cast<double>(plan->ranks[0].sent_bytes));
  EXPECT_GT(plan->seconds, 0);
}

TEST(ReshardPlan, LoadsWhatTheDeadHeldFromTheCheckpoint) {
  const ModelDescription model = MoeModel(3, 8);
  const ShardMap from = Map(model, "dp2 ep", 1);
  const ShardMap to = Map(model, "tp1 ep", 2);
  RankMatch match = MatchRanks(Names(2), Names(1), {true, false});
  const auto plan = PlanReshard(model, &from, to, match, {}, {});
  ASSERT_EQ(plan.status(), absl::OkStatus());
  ASSERT_EQ(plan->ranks.size(), 1u);
  // Half the experts of two layers.
  EXPECT_EQ(plan->ranks[0].disk_bytes, 2 * 4 * 3 * 128 * 64 * 2);
  EXPECT_EQ(plan->ranks[0].peer_bytes, 0);
}

TEST(ReshardPlan, RefusesToChangeNothing) {
  const ModelDescription model = MoeModel(3, 8);
  const ShardMap from = Map(model, "tp2", 1);
  const ShardMap to = Map(model, "tp2", 2);
  EXPECT_THAT(PlanReshard(model, &from, to, SameMachines(2, 2), {}, {}).status().message(),
              HasSubstr("nothing would change"));
  // Another machine in a rank's place is a change.
  const RankMatch match = MatchRanks(Names(2), {"w0", "w7"}, {true, true});
  const auto plan = PlanReshard(model, &from, to, match, {}, {});
  ASSERT_EQ(plan.status(), absl::OkStatus());
  EXPECT_EQ(plan->ranks[0].load_bytes(), 0);
  EXPECT_GT(plan->ranks[1].load_bytes(), 0);
}

TEST(ReshardPlan, RefusesWhatDoesNotFitWithTheArithmetic) {
  const ModelDescription model = MoeModel(3, 8);
  const ShardMap from = Map(model, "tp2", 1);
  const ShardMap to = Map(model, "dp2 ep", 2);
  Sizing sizing;
  const int64_t old_bytes = BytesOfRank(model, from, 0, sizing).weights;
  const int64_t new_bytes = BytesOfRank(model, to, 0, sizing).weights;
  // Room for each alone, and not for both.
  sizing.memory_bytes = std::max(BytesOfRank(model, from, 0, sizing).needed(),
                                 BytesOfRank(model, to, 0, sizing).needed()) +
                        std::min(old_bytes, new_bytes) / 4;
  const absl::Status status =
      PlanReshard(model, &from, to, SameMachines(2, 2), sizing, {}).status();
  EXPECT_TRUE(absl::IsResourceExhausted(status));
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("from tp2 dp1 pp1 to tp1 dp2 pp1 ep"), HasSubstr("of the old one +"),
                    HasSubstr("while both are there, and has")));
}

TEST(ReshardPlan, DigestsTellPartsApart) {
  const ModelDescription model = MoeModel(3, 8);
  const ShardMap map = Map(model, "dp2 ep", 1);
  const std::vector<WeightPart> parts = PartsOf(ShardOf(model, map, 0), false);
  const std::string digest = PartsDigest(model, parts);
  EXPECT_EQ(digest.size(), 32u);
  EXPECT_EQ(digest, PartsDigest(model, parts));
  EXPECT_NE(digest, PartsDigest(model, PartsOf(ShardOf(model, map, 1), false)));
  for (size_t missing = 0; missing < parts.size(); ++missing) {
    std::vector<WeightPart> fewer = parts;
    fewer.erase(fewer.begin() + static_cast<ptrdiff_t>(missing));
    EXPECT_NE(digest, PartsDigest(model, fewer)) << NameOf(parts[missing]);
  }
}

TEST(ReshardPlan, PlansAThousandRanks) {
  const ModelDescription model = MoeModel(8, 256);
  const ShardMap from = Map(model, "tp2 dp256 pp1 ep +256", 1);
  const ShardMap to = Map(model, "tp2 dp512 pp1 ep +768", 2);
  const RankMatch match = SameMachines(512, 1024);
  const auto plan = PlanReshard(model, &from, to, match, {}, {});
  ASSERT_EQ(plan.status(), absl::OkStatus());
  EXPECT_EQ(plan->ranks.size(), 1024u);
}

}  // namespace
}  // namespace troupe
