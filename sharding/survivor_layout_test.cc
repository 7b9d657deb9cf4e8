#include "sharding/survivor_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "sharding/layout_rules.h"
#include "sharding/reshard_test_model.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::MoeModel;

ShardMap Map(const ModelDescription& model, const char* layout) {
  return BuildShardMap(model, ParseLayout(layout).value(), 1).value();
}

std::vector<std::string> Names(int count) {
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.push_back(absl::StrCat("w", i));
  return names;
}

std::vector<bool> AllBut(int count, int dead) {
  std::vector<bool> alive(count, true);
  alive[dead] = false;
  return alive;
}

int64_t LoadedBytes(const ModelDescription& model, const ShardMap& from, const ShardMap& to,
                    const RankMatch& match) {
  int64_t bytes = 0;
  const auto plan = PlanReshard(model, &from, to, match, {}, {});
  for (const RankMove& move : plan->ranks) {
    bytes += move.load_bytes();
  }
  return bytes;
}

TEST(SurvivorLayout, KeepsWholeGroups) {
  const ModelDescription model = MoeModel(4, 8);
  const ShardMap from = Map(model, "tp2 dp2");
  for (int dead = 0; dead < 4; ++dead) {
    const auto choice =
        ChooseSurvivors(model, from, Names(4), AllBut(4, dead), {}, {.memory_bytes = 0});
    ASSERT_EQ(choice.status(), absl::OkStatus());
    // Three ranks: tp1 dp3 uses them all.
    EXPECT_EQ(choice->map.layout.world(), 3) << NameOf(choice->map.layout);
    EXPECT_EQ(ValidateShardMap(model, choice->map), absl::OkStatus());
    EXPECT_THAT(choice->members, ::testing::Not(::testing::Contains(absl::StrCat("w", dead))));
  }
  // With a spare in the place of the dead the layout is as it was, and the whole group stays.
  const auto choice = ChooseSurvivors(model, from, Names(4), AllBut(4, 0), {{"spare"}}, {});
  ASSERT_EQ(choice.status(), absl::OkStatus());
  EXPECT_EQ(choice->map.layout, from.layout);
  EXPECT_THAT(choice->members, ElementsAre("w2", "w3", "w1", "spare"));
}

TEST(SurvivorLayout, TakesLostExpertsFromCopies) {
  const ModelDescription model = MoeModel(4, 8);
  // Every expert twice: the loss of any rank loses none.
  const ShardMap from = Map(model, "dp4 ep +8");
  for (int dead = 0; dead < 4; ++dead) {
    const std::vector<bool> alive = AllBut(4, dead);
    const auto choice = ChooseSurvivors(model, from, Names(4), alive, {}, {});
    ASSERT_EQ(choice.status(), absl::OkStatus());
    EXPECT_EQ(NameOf(choice->map.layout), "tp1 dp3 pp1 ep +8");
    EXPECT_EQ(ValidateShardMap(model, choice->map), absl::OkStatus());
    const RankMatch match = MatchRanks(Names(4), choice->members, alive);
    EXPECT_EQ(LoadedBytes(model, from, choice->map, match), 0) << dead;
  }
}

TEST(SurvivorLayout, MovesOnlyWhatItMust) {
  const ModelDescription model = MoeModel(4, 16);
  const ShardMap from = Map(model, "dp4 ep");
  const std::vector<bool> alive = AllBut(4, 2);
  const auto choice = ChooseSurvivors(model, from, Names(4), alive, {}, {});
  ASSERT_EQ(choice.status(), absl::OkStatus());
  const RankMatch match = MatchRanks(Names(4), choice->members, alive);
  // The dead rank's four experts in each of three layers.
  EXPECT_EQ(LoadedBytes(model, from, choice->map, match), 3 * 4 * 3 * 128 * 64 * 2);
}

TEST(SurvivorLayout, CarriedExpertsAreSpreadEvenly) {
  const ModelDescription model = MoeModel(4, 16);
  const char* const kLayouts[] = {"dp2 ep",    "dp4 ep",     "dp8 ep",
                                  "dp4 ep +4", "tp2 dp2 ep", "dp2 pp2 ep"};
  for (const char* a : kLayouts) {
    for (const char* b : kLayouts) {
      SCOPED_TRACE(absl::StrCat(a, " -> ", b));
      const ShardMap from = Map(model, a);
      const ShardMap to = Map(model, b);
      const RankMatch match = MatchRanks(Names(from.layout.world()), Names(to.layout.world()),
                                         std::vector<bool>(from.layout.world(), true));
      const ShardMap carried = CarryExperts(from, to, match);
      ASSERT_EQ(ValidateShardMap(model, carried), absl::OkStatus());
      const int ranks = to.layout.tp * to.layout.dp;
      for (const ExpertPlacement& placement : carried.experts) {
        std::vector<int> held(ranks, 0);
        for (const auto& holders : placement.holders) {
          for (const int rank : holders) ++held[rank];
        }
        if (placement.holders.empty()) continue;
        EXPECT_LE(*std::max_element(held.begin(), held.end()),
                  (16 + to.layout.redundant_experts + ranks - 1) / ranks);
      }
    }
  }
}

TEST(SurvivorLayout, SaysWhenTheRestIsTooSmall) {
  const ModelDescription model = MoeModel(4, 16);
  const ShardMap from = Map(model, "dp4 ep");
  Sizing sizing;
  // The weights alone, with nothing beside them.
  sizing.memory_bytes = BytesOfRank(model, Map(model, "tp1"), 0, sizing).weights;
  const absl::Status status =
      ChooseSurvivors(model, from, Names(4), {true, false, false, false}, {}, sizing).status();
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(status.message(), HasSubstr("1 ranks are left of tp1 dp4 pp1 ep"));
}

}  // namespace
}  // namespace troupe
