#include "kernels/thread_pool/thread_pool.h"

#include <atomic>
#include <vector>

#include "gtest/gtest.h"

namespace troupe {
namespace {

class ThreadPoolTest : public testing::TestWithParam<ThreadPool::Config> {};

TEST_P(ThreadPoolTest, VisitsEveryIndexOnce) {
  ThreadPool pool(GetParam());
  for (int64_t count : {0, 1, 2, 7, 64, 1000}) {
    for (int64_t grain : {1, 3, 64, 5000}) {
      std::vector<std::atomic<int>> visits(count);
      pool.ParallelFor(count, grain, [&](WorkRange range) {
        EXPECT_LT(range.begin, range.end);
        if (pool.threads() > 1) {
          EXPECT_LE(range.end - range.begin, grain);
        }
        EXPECT_LT(range.worker, pool.threads());
        for (int64_t i = range.begin; i < range.end; ++i) ++visits[i];
      });
      for (int64_t i = 0; i < count; ++i) EXPECT_EQ(visits[i], 1) << i << " of " << count;
    }
  }
}

TEST_P(ThreadPoolTest, ManyShortLoopsInARow) {
  ThreadPool pool(GetParam());
  std::vector<int64_t> sums(pool.threads() * 16, 0);
  int64_t expected = 0;
  for (int loop = 1; loop <= 2000; ++loop) {
    pool.ParallelFor(8, 1, [&](WorkRange range) {
      sums[range.worker * 16] += loop * (range.end - range.begin);
    });
    expected += 8 * loop;
  }
  int64_t sum = 0;
  for (int64_t part : sums) sum += part;
  EXPECT_EQ(sum, expected);
}

// More threads than any test machine has cores; threads that never spin, so each loop wakes them.
INSTANTIATE_TEST_SUITE_P(Pools, ThreadPoolTest,
                         testing::Values(ThreadPool::Config{.threads = 1},
                                         ThreadPool::Config{.threads = 2},
                                         ThreadPool::Config{.threads = 2, .spin_us = 0},
                                         ThreadPool::Config{.threads = 13, .spin_us = 10}));

TEST(ThreadPoolCoresTest, DetectsAtLeastOneThread) {
  EXPECT_GE(ThreadPool(ThreadPool::Config{}).threads(), 1);
}

}  // namespace
}  // namespace troupe
