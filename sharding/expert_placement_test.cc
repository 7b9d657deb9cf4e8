#include "sharding/expert_placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/random.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Expert loads that fall as 1/rank^exponent, in a random order: what routers do in practice.
std::vector<double> ZipfLoads(int experts, double exponent, SeededRandom& random) {
  std::vector<double> loads(experts);
  for (int e = 0; e < experts; ++e) loads[e] = 1e6 / std::pow(e + 1, exponent);
  for (int e = experts - 1; e > 0; --e) std::swap(loads[e], loads[random.Below(e + 1)]);
  return loads;
}

// Experts in equal runs, as a map has them before anything was observed.
ExpertPlacement Contiguous(int experts, int ranks) {
  ExpertPlacement placement;
  for (int e = 0; e < experts; ++e) placement.holders.push_back({e * ranks / experts});
  return placement;
}

void CheckPlacement(const ExpertPlacement& placement, int experts, int ranks, int redundant) {
  ASSERT_EQ(placement.holders.size(), static_cast<size_t>(experts));
  std::vector<int> held(ranks, 0);
  int copies = 0;
  for (const std::vector<int>& holders : placement.holders) {
    ASSERT_FALSE(holders.empty());
    EXPECT_TRUE(std::is_sorted(holders.begin(), holders.end()));
    EXPECT_EQ(std::set<int>(holders.begin(), holders.end()).size(), holders.size());
    for (const int rank : holders) {
      ASSERT_GE(rank, 0);
      ASSERT_LT(rank, ranks);
      ++held[rank];
    }
    copies += static_cast<int>(holders.size());
  }
  EXPECT_EQ(copies, std::min(experts + redundant, experts * ranks));
  EXPECT_LE(*std::max_element(held.begin(), held.end()), (copies + ranks - 1) / ranks);
}

TEST(ExpertPlacement, HoldsItsPromisesForRandomLoads) {
  const uint64_t seed = 20260917;
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  SeededRandom random(seed);
  for (int round = 0; round < 300; ++round) {
    const int experts = 1 + static_cast<int>(random.Below(70));
    const int ranks = 1 + static_cast<int>(random.Below(40));
    const int redundant = static_cast<int>(random.Below(3 * experts));
    std::vector<double> loads(experts);
    const uint64_t kind = random.Below(3);
    for (double& load : loads) {
      load = kind == 0 ? 0 : kind == 1 ? 7 : static_cast<double>(random.Below(1000));
    }
    SCOPED_TRACE(absl::StrCat(experts, " experts, ", ranks, " ranks, ", redundant, " redundant"));
    const ExpertPlacement placement = PlaceExperts(loads, ranks, redundant);
    CheckPlacement(placement, experts, ranks, redundant);
    EXPECT_EQ(placement, PlaceExperts(loads, ranks, redundant));

    const std::vector<double> of_rank = RankLoads(loads, placement, ranks);
    EXPECT_NEAR(std::accumulate(of_rank.begin(), of_rank.end(), 0.0),
                std::accumulate(loads.begin(), loads.end(), 0.0), 1e-6);

    const ExpertPlacement before = PlaceExperts(std::vector<double>(experts, 1), ranks, 0);
    const ExpertPlacement renamed = KeepInPlace(before, placement, ranks);
    CheckPlacement(renamed, experts, ranks, redundant);
    EXPECT_NEAR(PlacementBalance(loads, renamed, ranks), PlacementBalance(loads, placement, ranks),
                1e-9);
    if (HasFailure()) return;
  }
}

TEST(ExpertPlacement, BalancesSkewedLoads) {
  SeededRandom random(7);
  for (const double exponent : {0.6, 1.0, 1.2}) {
    const std::vector<double> loads = ZipfLoads(128, exponent, random);
    const double before = PlacementBalance(loads, Contiguous(128, 16), 16);
    const double packed = PlacementBalance(loads, PlaceExperts(loads, 16, 0), 16);
    const double copied = PlacementBalance(loads, PlaceExperts(loads, 16, 32), 16);
    RecordProperty(absl::StrCat("zipf_", static_cast<int>(exponent * 10)),
                   absl::StrCat(before, " -> ", packed, " -> ", copied));
    EXPECT_GT(before, 1.3) << exponent;
    EXPECT_LT(packed, before) << exponent;
    EXPECT_LT(copied, 1.02) << exponent;
  }
}

// Without copies the hottest expert alone bounds the balance; packing reaches that bound.
TEST(ExpertPlacement, IsNoWorseThanItsHottestExpert) {
  const std::vector<double> loads = {100, 10, 10, 10, 10, 10, 10, 10};
  EXPECT_THAT(RankLoads(loads, PlaceExperts(loads, 4, 0), 4), ElementsAre(110, 20, 20, 20));
  // A copy on every rank would need three more.
  EXPECT_NEAR(PlacementBalance(loads, PlaceExperts(loads, 4, 4), 4), 1.0, 0.1);
}

TEST(ExpertPlacement, TokensSpreadEvenlyOverCopies) {
  const ExpertPlacement placement = {{{0, 1, 3}, {2}}};
  std::vector<int> tokens(4, 0);
  for (int position = 0; position < 300; ++position) ++tokens[HolderFor(placement, 0, position)];
  EXPECT_THAT(tokens, ElementsAre(100, 100, 0, 100));
  EXPECT_EQ(HolderFor(placement, 1, 17), 2);
}

TEST(ExpertPlacement, PlansMovesLayerByLayer) {
  SeededRandom random(3);
  // Layer 1 is dense; layer 2 is balanced as it is.
  ExpertLoads loads({32, 0, 32}, 1000);
  const std::vector<double> skewed = ZipfLoads(32, 1.0, random);
  std::vector<uint32_t> step;
  for (const double load : skewed) step.push_back(static_cast<uint32_t>(load));
  step.resize(64, 1000);
  ASSERT_EQ(loads.Add(step), absl::OkStatus());
  const std::vector<ExpertPlacement> current = {Contiguous(32, 4), {}, Contiguous(32, 4)};
  const auto moves = PlanPlacement(loads, current, 4, {.redundant_experts = 4});
  ASSERT_EQ(moves.status(), absl::OkStatus());
  ASSERT_EQ(moves->size(), 1u);
  const LayerMove& move = moves->front();
  EXPECT_EQ(move.layer, 0);
  EXPECT_LT(move.balance_after, 1.05);
  EXPECT_GT(move.balance_before, 1.3);
  // What is copied is what was not there, from where it was.
  std::vector<ExpertPlacement> after = current;
  for (const ExpertCopy& copy : move.copies) {
    EXPECT_THAT(current[0].holders[copy.expert], ::testing::Contains(copy.from_rank));
    EXPECT_THAT(current[0].holders[copy.expert], ::testing::Not(::testing::Contains(copy.to_rank)));
    EXPECT_THAT(move.placement.holders[copy.expert], ::testing::Contains(copy.to_rank));
  }
  // Applied, nothing is left to be gained.
  after[0] = move.placement;
  EXPECT_THAT(*PlanPlacement(loads, after, 4, {.redundant_experts = 4}), ::testing::IsEmpty());
}

TEST(ExpertPlacement, FollowsLoadsThatChange) {
  ExpertLoads loads({2}, 10);
  ASSERT_EQ(loads.Add(std::vector<uint32_t>{100, 0}), absl::OkStatus());
  for (int i = 0; i < 10; ++i) ASSERT_EQ(loads.Add(std::vector<uint32_t>{0, 0}), absl::OkStatus());
  EXPECT_NEAR(loads.layer(0)[0], 50, 1e-6);
  EXPECT_THAT(loads.Add(std::vector<uint32_t>{1}).message(), HasSubstr("found 1 values, wanted 2"));
}

TEST(ExpertPlacement, BalanceOfAllLayersNamesTheWorst) {
  ExpertLoads loads({4, 0, 4}, 1000);
  const std::vector<ExpertPlacement> current = {Contiguous(4, 2), {}, Contiguous(4, 2)};
  EXPECT_TRUE(loads.empty());
  EXPECT_EQ(BalanceOf(loads, current, 2).worst_layer, -1);
  ASSERT_EQ(loads.Add(std::vector<uint32_t>{1, 1, 1, 1, 5, 4, 1, 2}), absl::OkStatus());
  EXPECT_FALSE(loads.empty());
  const StageBalance balance = BalanceOf(loads, current, 2);
  EXPECT_EQ(balance.worst_layer, 2);
  EXPECT_DOUBLE_EQ(balance.worst, 1.5) << "9 of 12 tokens on one of two ranks";
  EXPECT_DOUBLE_EQ(balance.mean, 1.25);
}

TEST(ExpertPlacement, RefusesLoadsOfAnotherModel) {
  const ExpertLoads loads({4}, 10);
  EXPECT_THAT(PlanPlacement(loads, {}, 2, {}).status().message(), HasSubstr("found 1 layers"));
  const std::vector<ExpertPlacement> current = {Contiguous(8, 2)};
  EXPECT_THAT(PlanPlacement(loads, current, 2, {}).status().message(),
              HasSubstr("found 4 experts, wanted 8"));
}

// Large replicas: 256 experts of a layer on 1,024 ranks, one slot each.
TEST(ExpertPlacement, PlacesAThousandRanks) {
  SeededRandom random(11);
  const std::vector<double> loads = ZipfLoads(256, 1.0, random);
  const ExpertPlacement placement = PlaceExperts(loads, 1024, 768);
  CheckPlacement(placement, 256, 1024, 768);
  EXPECT_LT(PlacementBalance(loads, placement, 1024), 1.5);
}

}  // namespace
}  // namespace troupe
