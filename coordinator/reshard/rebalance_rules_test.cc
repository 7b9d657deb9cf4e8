#include "coordinator/reshard/rebalance_rules.h"

#include <gtest/gtest.h>

namespace troupe {
namespace {

TEST(WorthRebalancingTest, WantsTooMuchAndAGain) {
  const RebalanceRules rules = {.above = 1.2};
  EXPECT_TRUE(WorthRebalancing(1.9, 1.05, rules));
  EXPECT_TRUE(WorthRebalancing(1.4, 1.29, rules)) << "a quarter of what is too much";
  EXPECT_FALSE(WorthRebalancing(1.4, 1.31, rules));
  EXPECT_FALSE(WorthRebalancing(1.2, 1.0, rules)) << "not above";
  EXPECT_FALSE(WorthRebalancing(1.5, 1.6, rules)) << "worse";
}

TEST(WorthRebalancingTest, ZeroIsNever) { EXPECT_FALSE(WorthRebalancing(4, 1, {})); }

}  // namespace
}  // namespace troupe
