#include "worker/wait_chain.h"

#include <gtest/gtest.h>

#include <map>

namespace troupe {
namespace {

// Members that say whom they wait for; those that are not named say nothing.
int CulpritOf(const std::map<int, int>& waits, int first) {
  WaitChain* asker = nullptr;
  WaitChain chain(/*rank=*/0, /*size=*/5, std::chrono::milliseconds(1), [&](int peer) {
    const auto found = waits.find(peer);
    if (found != waits.end()) asker->OnAnswer(peer, found->second);
    return peer != 4;  // who cannot be reached
  });
  asker = &chain;
  return chain.Culprit(first);
}

TEST(WaitChain, EndsAtWhoSaysNothing) {
  EXPECT_EQ(CulpritOf({}, 2), 2);
  EXPECT_EQ(CulpritOf({{1, 2}, {2, 3}}, 1), 3);
  EXPECT_EQ(CulpritOf({{1, 4}}, 1), 4);
}

TEST(WaitChain, EndsAtWhoWaitsForNobody) { EXPECT_EQ(CulpritOf({{1, 3}, {3, -1}}, 1), 3); }

TEST(WaitChain, BlamesTheFirstWhereAllWaitForEachOther) {
  EXPECT_EQ(CulpritOf({{1, 2}, {2, 1}}, 1), 1);
  EXPECT_EQ(CulpritOf({{1, 2}, {2, 0}}, 1), 1);
  EXPECT_EQ(CulpritOf({{1, 77}}, 1), 1) << "no such member";
}

TEST(WaitChain, DoesNotWaitOnceGivenUp) {
  WaitChain chain(0, 2, std::chrono::hours(1), [](int /*peer*/) { return true; });
  chain.GiveUp();
  EXPECT_EQ(chain.Culprit(1), 1);
}

}  // namespace
}  // namespace troupe
