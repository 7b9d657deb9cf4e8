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
//   root = sha256(b"troupe.kv.v1" + identity + pack("<B", len(ns)) + ns + pack("<ff", t, a))
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
  EXPECT_EQ(Hex(root), "03560fc4ae51446c7ad5d4f04402d48ae1e768050a26db343b4d5f339bfcd155");
  EXPECT_EQ(Hex(RootKey(Identity(), "", Gate(0.5f, 0.01f))),
            "282dcf9c164eadeca2de91159722547cf6423204a6f6719ce344c3cf954fa671");

  std::vector<uint32_t> tokens(64);
  std::iota(tokens.begin(), tokens.end(), 0);
  for (uint64_t i = 0; i < 64; ++i) tokens.push_back(1000003 * i % 70000);
  const std::vector<BlockKey> keys = BlockKeys(root, tokens, 64);
  ASSERT_EQ(keys.size(), 2u);
  EXPECT_EQ(Hex(keys[0]), "ea219bdf52f731b6ba6f9815e0e41ff81f7f00c7f84c05c4242b2eaebc9e89b9");
  EXPECT_EQ(Hex(keys[1]), "da820efab8fa1c5c18a3319013f5122c1518db129628ad7e8e324b8e0a8029a8");
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
