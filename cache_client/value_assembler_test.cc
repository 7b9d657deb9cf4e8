#include "cache_client/value_assembler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cache_client/cache_limits.h"
#include "cache_client/crc32c.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

std::string MessageOf(const absl::Status& status) { return std::string{status.message()}; }

TEST(ValueAssembler, JoinsChunks) {
  const std::string value = std::string(kCacheMaxChunkBytes, 'a') + "tail";
  ValueAssembler assembler;
  EXPECT_FALSE(assembler.active());
  for (int round = 0; round < 2; ++round) {
    ASSERT_TRUE(assembler.Begin(value.size(), Crc32c(value)).ok());
    ASSERT_TRUE(assembler.Append(0, std::string_view(value).substr(0, kCacheMaxChunkBytes)).ok());
    EXPECT_FALSE(assembler.complete());
    ASSERT_TRUE(assembler.Append(kCacheMaxChunkBytes, "tail").ok());
    ASSERT_TRUE(assembler.complete());
    EXPECT_EQ(assembler.Take().value(), value);
    EXPECT_FALSE(assembler.active());
  }
}

TEST(ValueAssembler, RefusesWhatDoesNotFit) {
  ValueAssembler assembler;
  EXPECT_THAT(MessageOf(assembler.Begin(0, 0)), HasSubstr("value_bytes: found 0"));
  EXPECT_THAT(MessageOf(assembler.Begin(kCacheMaxValueBytes + 1, 0)), HasSubstr("value_bytes"));
  EXPECT_FALSE(assembler.active());
  ASSERT_TRUE(assembler.Begin(10, 0).ok());
  EXPECT_THAT(MessageOf(assembler.Append(1, "abc")), HasSubstr("offset: found 1, wanted 0"));
  EXPECT_THAT(MessageOf(assembler.Append(0, "")), HasSubstr("data: found 0 bytes, wanted 1 to 10"));
  EXPECT_THAT(MessageOf(assembler.Append(0, "01234567890")), HasSubstr("data: found 11"));
  ASSERT_TRUE(assembler.Append(0, "abc").ok());
  EXPECT_THAT(MessageOf(assembler.Append(0, "abc")), HasSubstr("offset: found 0, wanted 3"));
  EXPECT_THAT(MessageOf(assembler.Append(3, "01234567")), HasSubstr("wanted 1 to 7"));
}

TEST(ValueAssembler, RefusesChunksOverTheLimit) {
  ValueAssembler assembler;
  ASSERT_TRUE(assembler.Begin(kCacheMaxValueBytes, 0).ok());
  EXPECT_THAT(MessageOf(assembler.Append(0, std::string(kCacheMaxChunkBytes + 1, 'x'))),
              HasSubstr("data: found 262145"));
}

TEST(ValueAssembler, NothingLeavesUnchecked) {
  ValueAssembler assembler;
  ASSERT_TRUE(assembler.Begin(3, Crc32c("abc") ^ 1).ok());
  ASSERT_TRUE(assembler.Append(0, "abc").ok());
  EXPECT_EQ(assembler.Take().status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace troupe
