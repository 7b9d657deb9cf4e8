#include "coordinator/prefix_affinity.h"

#include <gtest/gtest.h>

#include <vector>

namespace troupe {
namespace {

// The keys of `count` blocks of a prompt; prompts of one family share them.
std::vector<BlockKey> Keys(const std::string& family, uint32_t count) {
  const std::vector<uint32_t> tokens(count * 4, 7);
  return BlockKeys(RootKey(std::string(32, 'i'), family, {}), tokens, 4, count);
}

TEST(PrefixAffinity, CountsTheLeadingBlocks) {
  PrefixAffinity affinity(100);
  EXPECT_EQ(affinity.Match(Keys("a", 5)), 0u);
  affinity.Insert(Keys("a", 3));
  EXPECT_EQ(affinity.Match(Keys("a", 5)), 3u);
  EXPECT_EQ(affinity.Match(Keys("a", 2)), 2u);
  EXPECT_EQ(affinity.Match(Keys("b", 5)), 0u);
  EXPECT_EQ(affinity.Match({}), 0u);
}

TEST(PrefixAffinity, LetsTheLeastRecentlyUsedGo) {
  PrefixAffinity affinity(6);
  affinity.Insert(Keys("a", 3));
  affinity.Insert(Keys("b", 3));
  affinity.Insert(Keys("a", 3));
  affinity.Insert(Keys("c", 3));
  EXPECT_EQ(affinity.Match(Keys("a", 3)), 3u);
  EXPECT_EQ(affinity.Match(Keys("b", 3)), 0u);
  EXPECT_EQ(affinity.Match(Keys("c", 3)), 3u);
}

TEST(PrefixAffinity, TheTailOfAPrefixGoesBeforeItsHead) {
  PrefixAffinity affinity(5);
  affinity.Insert(Keys("a", 4));
  affinity.Insert(Keys("b", 3));
  EXPECT_EQ(affinity.Match(Keys("a", 4)), 2u);
  EXPECT_EQ(affinity.Match(Keys("b", 3)), 3u);
}

TEST(PrefixAffinity, RemembersTheHeadOfWhatIsTooLong) {
  PrefixAffinity affinity(4);
  affinity.Insert(Keys("a", 10));
  EXPECT_EQ(affinity.Match(Keys("a", 10)), 4u);
  PrefixAffinity none(0);
  none.Insert(Keys("a", 10));
  EXPECT_EQ(none.Match(Keys("a", 10)), 0u);
}

}  // namespace
}  // namespace troupe
