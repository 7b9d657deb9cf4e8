#include "cache_service/value_format.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "cache_client/cache_limits.h"
#include "cache_client/crc32c.h"

namespace troupe {
namespace {

ValueId TestId() {
  return {.identity = std::string(32, 'i'),
          .tenant_namespace = "tenant",
          .block_key = std::string(32, 'k'),
          .group = 0x01020304};
}

std::string RandomBytes(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::string bytes(count, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

ValueInfo InfoOf(const std::string& value) {
  return {.value_bytes = value.size(), .crc32c = Crc32c(value)};
}

TEST(ValueFormat, PartsCoverTheValueOnceAndFitARecord) {
  const uint64_t sizes[] = {1,       255 << 10, 256 << 10, (256 << 10) + 1,
                            1 << 20, 777777,    5 << 20,   64 << 20};
  for (const uint64_t size : sizes) {
    uint64_t covered = 0;
    for (uint32_t part = 0; part < PartCountOf(size); ++part) {
      const PartRange range = PartRangeOf(size, part);
      EXPECT_EQ(range.offset, covered);
      EXPECT_GT(range.bytes, 0u);
      covered += range.bytes;
    }
    EXPECT_EQ(covered, size);
  }
  EXPECT_EQ(PartCountOf(255 << 10), 1u);
  EXPECT_EQ(PartCountOf(256 << 10), 2u);
}

TEST(ValueFormat, RoundTrip) {
  for (const size_t size : {size_t{1}, size_t{70000}, size_t{256} << 10, size_t{1} << 20}) {
    for (const size_t namespace_bytes : {size_t{0}, kCacheMaxNamespaceBytes}) {
      ValueId id = TestId();
      id.tenant_namespace = std::string(namespace_bytes, 'n');
      const std::string value = RandomBytes(size, 1);
      const ValueInfo info = InfoOf(value);
      const std::string manifest = EncodeManifest(id, info);
      EXPECT_EQ(DecodeManifest(id, manifest).value(), info);
      uint64_t stored = manifest.size();
      std::string joined;
      for (uint32_t part = 0; part < PartCountOf(size); ++part) {
        const std::string record = EncodePart(id, info, part, value);
        EXPECT_LE(record.size(), kMaxRecordBytes);
        stored += record.size();
        joined += DecodePart(id, info, part, record).value();
      }
      EXPECT_EQ(joined, value);
      EXPECT_EQ(StoredBytesOf(id, size), stored);
    }
  }
}

TEST(ValueFormat, RecordsOfAnotherValueAreRefused) {
  const std::string value = RandomBytes(600 << 10, 2);
  const ValueId id = TestId();
  const ValueInfo info = InfoOf(value);
  std::vector<ValueId> others(4, id);
  others[0].identity[5] ^= 1;
  others[1].tenant_namespace = "tenanu";
  others[2].block_key[31] ^= 1;
  others[3].group += 1;
  for (const ValueId& other : others) {
    EXPECT_TRUE(absl::IsDataLoss(DecodeManifest(id, EncodeManifest(other, info)).status()));
    EXPECT_TRUE(
        absl::IsDataLoss(DecodePart(id, info, 0, EncodePart(other, info, 0, value)).status()));
  }
  // Another part, another put of the same key, and a record of the other kind.
  EXPECT_TRUE(absl::IsDataLoss(DecodePart(id, info, 0, EncodePart(id, info, 1, value)).status()));
  ValueInfo later = info;
  later.crc32c ^= 1;
  EXPECT_TRUE(absl::IsDataLoss(DecodePart(id, later, 0, EncodePart(id, info, 0, value)).status()));
  EXPECT_TRUE(absl::IsDataLoss(DecodePart(id, info, 0, EncodeManifest(id, info)).status()));
  EXPECT_TRUE(absl::IsDataLoss(DecodeManifest(id, EncodePart(id, info, 0, value)).status()));
}

// One random damage: a flipped bit, a changed run, a cut, a repeat, or bytes from nowhere.
std::string Mutate(std::string record, std::mt19937& random) {
  const size_t at = record.empty() ? 0 : random() % record.size();
  switch (random() % 6) {
    case 0:
      if (!record.empty()) record[at] = static_cast<char>(record[at] ^ (1 << random() % 8));
      break;
    case 1:
      for (size_t i = at; i < std::min(record.size(), at + random() % 16); ++i) {
        record[i] = static_cast<char>(random());
      }
      break;
    case 2:
      record.resize(at);
      break;
    case 3:
      record.insert(at, record.substr(0, random() % 64));
      break;
    case 4:
      record = RandomBytes(random() % 400, static_cast<uint32_t>(random()));
      break;
    default:
      record.erase(at, random() % 16);
  }
  return record;
}

TEST(ValueFormat, NoMutationIsEverTakenForTheValue) {
  std::mt19937 random(20240607);
  const ValueId id = TestId();
  const std::string value = RandomBytes(300, 3);
  const ValueInfo info = InfoOf(value);
  const std::string manifest = EncodeManifest(id, info);
  const std::string part = EncodePart(id, info, 0, value);
  const std::string key = ManifestKeyOf(id);
  int refused = 0;
  for (int round = 0; round < 100000; ++round) {
    const std::string bad_manifest = Mutate(manifest, random);
    const auto decoded = DecodeManifest(id, bad_manifest);
    EXPECT_EQ(decoded.ok(), bad_manifest == manifest);
    const std::string bad_part = Mutate(part, random);
    const auto payload = DecodePart(id, info, 0, bad_part);
    EXPECT_EQ(payload.ok(), bad_part == part);
    refused += decoded.ok() ? 0 : 1;
    const std::string bad_key = Mutate(key, random);
    const auto parsed = ParseManifestKey(bad_key);
    if (parsed.ok()) {
      EXPECT_EQ(ManifestKeyOf(*parsed), bad_key);
    }
  }
  EXPECT_GT(refused, 90000);
}

TEST(ValueFormat, KeysRoundTripAndSortByTenant) {
  const ValueId id = TestId();
  EXPECT_EQ(ParseManifestKey(ManifestKeyOf(id)).value(), id);
  EXPECT_TRUE(PartKeyOf(id, 7).starts_with(ManifestKeyOf(id)));
  EXPECT_LT(PartKeyOf(id, 255), PartKeyOf(id, 256));
  // A namespace cannot run into the identity that follows it.
  ValueId longer = id;
  longer.tenant_namespace += longer.identity[0];
  EXPECT_NE(ManifestKeyOf(longer), ManifestKeyOf(id));
  EXPECT_FALSE(ParseManifestKey("").ok());
}

}  // namespace
}  // namespace troupe
