#include "sharding/rebalance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "sharding/layout_rules.h"
#include "sharding/reshard_test_model.h"
#include "sharding/survivor_layout.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;
using testing::MoeModel;

ShardMap Map(const ModelDescription& model, const std::string& layout) {
  return BuildShardMap(model, ParseLayout(layout).value(), 1).value();
}

RankMatch Same(int ranks) {
  RankMatch match;
  for (int r = 0; r < ranks; ++r) match.old_of_new.push_back(r);
  match.old_alive.assign(ranks, true);
  return match;
}

// Routing that prefers few experts, other ones in each layer: expert e gets tokens as
// 1 / (1 + (e + 3 layer) mod experts).
ExpertLoads Skewed(const ModelDescription& model) {
  ExpertLoads loads = LoadsOf(model);
  std::vector<uint32_t> tokens;
  for (size_t layer = 0; layer < model.layers.size(); ++layer) {
    const int experts = static_cast<int>(loads.layer(static_cast<int>(layer)).size());
    for (int e = 0; e < experts; ++e) {
      tokens.push_back(100'000 / (1 + (e + 3 * static_cast<int>(layer)) % experts));
    }
  }
  CHECK_OK(loads.Add(tokens));
  return loads;
}

TEST(Rebalance, SkewedRoutingIsEvenAfterwards) {
  const ModelDescription model = MoeModel(5, 32);
  const ShardMap from = Map(model, "dp8 ep");
  const ExpertLoads loads = Skewed(model);
  const ShardMap to = CarryExperts(from, Map(model, "dp8 ep +16"), Same(8));
  const auto change = RebalanceExperts(model, from, to, loads, Same(8), {}, {});
  ASSERT_EQ(change.status(), absl::OkStatus());
  EXPECT_EQ(change->layers_moved, 4);
  EXPECT_EQ(change->layers_left, 0);
  EXPECT_EQ(ValidateShardMap(model, change->map), absl::OkStatus());
  const StageBalance before = BalanceOf(loads, from.experts, 8);
  const StageBalance after = BalanceOf(loads, change->map.experts, 8);
  RecordProperty("balance", absl::StrCat(before.mean, " (worst ", before.worst, ") -> ", after.mean,
                                         " (worst ", after.worst, ")"));
  EXPECT_GT(before.worst, 1.8);
  EXPECT_LT(after.worst, 1.06);
  // Once is enough.
  const absl::Status again =
      RebalanceExperts(model, change->map, change->map, loads, Same(8), {}, {}).status();
  EXPECT_TRUE(absl::IsInvalidArgument(again));
  EXPECT_THAT(again.message(), HasSubstr("nothing would be gained"));
}

TEST(Rebalance, MovesTheLayersThatFitAndTheOthersNextTime) {
  const ModelDescription model = MoeModel(9, 32);
  const ExpertLoads loads = Skewed(model);
  ShardMap map = Map(model, "dp4 ep");
  const auto all = RebalanceExperts(model, map, map, loads, Same(4), {}, {});
  ASSERT_EQ(all.status(), absl::OkStatus());
  ASSERT_EQ(all->layers_moved, 8);
  // Between what the map takes and what all moves would take at once.
  int64_t peak = 0;
  const auto whole = PlanReshard(model, &map, all->map, Same(4), {}, {});
  for (const RankMove& move : whole->ranks) {
    peak = std::max(peak, move.peak_bytes);
  }
  int64_t needed = 0;
  for (int r = 0; r < 4; ++r) needed = std::max(needed, BytesOfRank(model, map, r, {}).needed());
  Sizing sizing;
  sizing.memory_bytes = (needed + peak) / 2;
  int changes = 0;
  for (int left = 8; left > 0; ++changes) {
    const auto change = RebalanceExperts(model, map, map, loads, Same(4), sizing, {});
    ASSERT_EQ(change.status(), absl::OkStatus());
    EXPECT_EQ(change->layers_moved + change->layers_left, left);
    EXPECT_LT(change->layers_moved, 8);
    const auto plan = PlanReshard(model, &map, change->map, Same(4), sizing, {});
    for (const RankMove& move : plan->ranks) {
      EXPECT_LE(move.peak_bytes, sizing.memory_bytes);
    }
    left = change->layers_left;
    map = change->map;
  }
  EXPECT_GT(changes, 1);
  EXPECT_EQ(map.experts, all->map.experts);
  sizing.memory_bytes = needed;
  map = Map(model, "dp4 ep");
  EXPECT_TRUE(absl::IsResourceExhausted(
      RebalanceExperts(model, map, map, loads, Same(4), sizing, {}).status()));
}

TEST(Rebalance, MakesNoMoreCopiesThanFit) {
  const ModelDescription model = MoeModel(3, 32);
  const ExpertLoads loads = Skewed(model);
  const ShardMap from = Map(model, "dp4 ep");
  const ShardMap to = CarryExperts(from, Map(model, "dp4 ep +32"), Same(4));
  const auto free = RebalanceExperts(model, from, to, loads, Same(4), {}, {});
  ASSERT_EQ(free.status(), absl::OkStatus());
  int64_t most = 0;
  for (int r = 0; r < 4; ++r) most = std::max(most, BytesOfRank(model, free->map, r, {}).needed());
  Sizing sizing;
  sizing.memory_bytes = most - 1;
  const auto tight = RebalanceExperts(model, from, to, loads, Same(4), sizing, {});
  ASSERT_EQ(tight.status(), absl::OkStatus());
  EXPECT_EQ(CheckFits(model, tight->map, sizing), absl::OkStatus());
  EXPECT_LT(BalanceOf(loads, tight->map.experts, 4).mean, BalanceOf(loads, from.experts, 4).mean);
}

TEST(Rebalance, RefusesSplitExperts) {
  const ModelDescription model = MoeModel(3, 8);
  const ShardMap map = Map(model, "tp2");
  EXPECT_THAT(RebalanceExperts(model, map, map, Skewed(model), Same(2), {}, {}).status().message(),
              HasSubstr("wanted ep"));
}

}  // namespace
}  // namespace troupe
