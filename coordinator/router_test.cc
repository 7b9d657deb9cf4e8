#include "coordinator/router.h"

#include <vector>

#include "gtest/gtest.h"

namespace troupe {
namespace {

constexpr RouterConfig kConfig;

TEST(RouterTest, NobodyToRouteTo) { EXPECT_FALSE(Route(kConfig, {}, 10).has_value()); }

TEST(RouterTest, TheLeastLoadedReplicaIsChosen) {
  const std::vector<ReplicaLoad> replicas = {{.running = 4, .max_batch_size = 16},
                                             {.running = 2, .max_batch_size = 16},
                                             {.running = 3, .max_batch_size = 16}};
  EXPECT_EQ(Route(kConfig, replicas, 100), 1u);
}

TEST(RouterTest, EqualReplicasAreFilledInTurnAsTheirLoadGrows) {
  std::vector<ReplicaLoad> replicas(2, {.max_batch_size = 16});
  std::vector<int> chosen(2);
  for (int i = 0; i < 40; ++i) {
    const size_t at = *Route(kConfig, replicas, 30);
    ++chosen[at];
    ++replicas[at].running;
  }
  EXPECT_EQ(chosen[0], 20);
}

TEST(RouterTest, APrefixDrawsARequestToItsReplica) {
  const std::vector<ReplicaLoad> replicas = {
      {.running = 1, .max_batch_size = 16},
      {.running = 3, .max_batch_size = 16, .prefix_tokens = 960}};
  EXPECT_EQ(Route(kConfig, replicas, 1000), 1u);
  EXPECT_EQ(Route(kConfig, replicas, 10), 0u) << "ten tokens are not worth a queue";
}

TEST(RouterTest, APopularPrefixDoesNotPileUpOnOneReplica) {
  const std::vector<ReplicaLoad> replicas = {
      {.tokens_outstanding = 100, .running = 1, .max_batch_size = 16},
      {.tokens_outstanding = 3000,
       .running = 16,
       .waiting = 30,
       .max_batch_size = 16,
       .prefix_tokens = 60000}};
  EXPECT_EQ(Route(kConfig, replicas, 3000), 0u);
}

TEST(RouterTest, ALongPromptInPrefillWeighsByItsTokens) {
  const std::vector<ReplicaLoad> replicas = {
      {.tokens_outstanding = 64000, .running = 1, .max_batch_size = 16},
      {.running = 12, .max_batch_size = 16}};
  EXPECT_EQ(Route(kConfig, replicas, 50), 1u);
}

}  // namespace
}  // namespace troupe
