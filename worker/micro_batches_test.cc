#include "worker/micro_batches.h"

#include <gtest/gtest.h>

namespace troupe {
namespace {

TEST(MicroBatches, OneStageAndSmallStepsStayWhole) {
  EXPECT_EQ(MicroBatches(1, 100'000, 1), 1);
  EXPECT_EQ(MicroBatches(2, 0, 64), 1);
  EXPECT_EQ(MicroBatches(2, 1, 0), 1) << "no part without a token";
  // Two halves take 3 * (64 + 32), the whole 2 * (64 + 64).
  EXPECT_EQ(MicroBatches(2, 64, 64), 1);
}

TEST(MicroBatches, TakesTheNumberThatIsFastest) {
  // 2 * 576 = 1152 whole; 3 * 320 = 960; 4 * 234.7 = 939; 5 * 192 = 960.
  EXPECT_EQ(MicroBatches(2, 512, 64), 3);
  EXPECT_EQ(MicroBatches(4, 512, 64), 5) << "8 * 166.4 = 1331; 9 * 149.3 = 1344 for 6";
  EXPECT_EQ(MicroBatches(2, 1'000'000, 1), kMostMicroBatches);
  int last = 1;
  for (int64_t tokens = 1; tokens < 100'000; tokens *= 2) {
    const int parts = MicroBatches(2, tokens, 64);
    EXPECT_GE(parts, last) << "more tokens are not cut into fewer parts";
    last = parts;
  }
}

}  // namespace
}  // namespace troupe
