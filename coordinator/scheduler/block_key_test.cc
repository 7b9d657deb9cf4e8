#include "coordinator/scheduler/block_key.h"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"

namespace troupe {
namespace {

// The expected values were computed with Python's hashlib and struct:
//   root = sha256(b"troupe.kv.v1" + identity + pack("<I", len(ns)) + ns + pack("<ff", t, a))
//   key  = sha256(parent + b"".join(pack("<I", t) for t in tokens))
std::string Identity() {
  std::string identity(32, '\0');
  std::iota(identity.begin(), identity.end(), 0);
  return identity;
}

v1::GateSetting Gate(float threshold, float adaptive_mass) {
  v1::GateSetting gate;
  gate.set_threshold(threshold);
  gate.set_adaptive_mass(adaptive_mass);
  return gate;
}

std::string Hex(const BlockKey& key) { return absl::BytesToHexString(key.ToString()); }

TEST(BlockKey, MatchesIndependentVectors) {
  const BlockKey root = RootKey(Identity(), "tenant-a", Gate(0.3f, 0));
  EXPECT_EQ(Hex(root), "d4815a52d8e54f804d277b0d0d5149419b23657fe319ae55ef8f11f093aebab4");
  EXPECT_EQ(Hex(RootKey(Identity(), "", Gate(0.5f, 0.01f))),
            "b3f156e7ed3ac2e448c3cd8aeab6e142fec744884fd3abf35300130f8da0237e");

  std::vector<uint32_t> tokens(64);
  std::iota(tokens.begin(), tokens.end(), 0);
  for (uint64_t i = 0; i < 64; ++i) tokens.push_back(1000003 * i % 70000);
  const std::vector<BlockKey> keys = BlockKeys(root, tokens, 64);
  ASSERT_EQ(keys.size(), 2u);
  EXPECT_EQ(Hex(keys[0]), "9ea543f8a822fe16aa8bc6c3cc29e2c573ea2581cbcfacad9c9c2e5fa4ee3de1");
  EXPECT_EQ(Hex(keys[1]), "97ba898e66ba7b7b180da110507bae15b94d7e531504af85d1bdd071fa508914");
}

TEST(BlockKey, OneBlockAtATimeIsTheSame) {
  std::vector<uint32_t> tokens(1000);
  std::iota(tokens.begin(), tokens.end(), 7);
  const BlockKey root = RootKey(Identity(), "t", Gate(0, 0));
  const std::vector<BlockKey> keys = BlockKeys(root, tokens, 64);
  ASSERT_EQ(keys.size(), 1000u / 64);
  BlockKey parent = root;
  for (size_t i = 0; i < keys.size(); ++i) {
    parent = NextKey(parent, absl::MakeSpan(tokens).subspan(i * 64, 64));
    EXPECT_EQ(parent, keys[i]);
  }
}

TEST(BlockKey, TenantsAndGatesNeverMeet) {
  const BlockKey root = RootKey(Identity(), "ab", Gate(0.3f, 0));
  EXPECT_NE(root, RootKey(Identity(), "a", Gate(0.3f, 0)));
  EXPECT_NE(root, RootKey(Identity(), "ab", Gate(0.5f, 0)));
  EXPECT_NE(root, RootKey(Identity(), "ab", Gate(0.3f, 0.01f)));
  EXPECT_NE(root, RootKey(std::string(32, 'x'), "ab", Gate(0.3f, 0)));
}

TEST(BlockKey, NegativeZeroIsZero) {
  EXPECT_EQ(RootKey(Identity(), "", Gate(-0.0f, -0.0f)), RootKey(Identity(), "", Gate(0, 0)));
}

TEST(BlockKey, AtMostSoManyBlocks) {
  const std::vector<uint32_t> tokens(640);
  EXPECT_EQ(BlockKeys(BlockKey(), tokens, 64, 3).size(), 3u);
  EXPECT_TRUE(BlockKeys(BlockKey(), {}, 64).empty());
}

TEST(BlockKey, TheLastTokenIsNeverReused) {
  EXPECT_EQ(ReusableBlocks(0, 64), 0u);
  EXPECT_EQ(ReusableBlocks(64, 64), 0u);
  EXPECT_EQ(ReusableBlocks(65, 64), 1u);
  EXPECT_EQ(ReusableBlocks(128, 64), 1u);
  EXPECT_EQ(ReusableBlocks(129, 64), 2u);
}

}  // namespace
}  // namespace troupe
