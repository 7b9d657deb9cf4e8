#include "cache_service/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cache_client/crc32c.h"
#include "cache_service/memory_store.h"
#include "cache_service/value_format.h"

namespace troupe {
namespace {

ValueId IdOf(int number) {
  ValueId id = {.identity = std::string(32, 'i'), .block_key = std::string(32, 'k')};
  id.group = number;
  return id;
}

TEST(CapacityLimit, AdmitsExactlyWhatFits) {
  const auto limit = MakeCapacityLimit(100);
  EXPECT_TRUE(limit->Admit(IdOf(0), 100, {}).ok());
  EXPECT_TRUE(limit->Admit(IdOf(0), 40, {.used_bytes = 60}).ok());
  const absl::Status full = limit->Admit(IdOf(0), 41, {.used_bytes = 60});
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.message()), ::testing::HasSubstr("needs 41 bytes, 40 of 100"));
  // More than the capacity may be there from before, when it was larger.
  EXPECT_FALSE(limit->Admit(IdOf(0), 1, {.used_bytes = 200}).ok());
}

TEST(CapacityLedger, ReservationsThatAreNotCommittedGoBack) {
  CapacityLedger ledger(MakeCapacityLimit(100));
  {
    auto dropped = ledger.Reserve(IdOf(0), 70);
    ASSERT_TRUE(dropped.ok());
    EXPECT_FALSE(ledger.Reserve(IdOf(1), 70).ok());
  }
  auto kept = ledger.Reserve(IdOf(1), 70);
  ASSERT_TRUE(kept.ok());
  kept->Commit();
  EXPECT_EQ(ledger.usage().used_bytes, 70u);
  EXPECT_EQ(ledger.usage().values, 1u);
  ledger.Remove(70);
  EXPECT_EQ(ledger.usage().used_bytes, 0u);
}

TEST(MemoryStore, KeepsTheContractOfAStore) {
  const uint64_t value_stored_bytes = StoredBytesOf(IdOf(0), 3);
  MemoryStore store(MakeCapacityLimit(2 * value_stored_bytes));
  EXPECT_EQ(store.Get(IdOf(0)).status().code(), absl::StatusCode::kNotFound);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(store.Put(IdOf(i), "abc", Crc32c("abc")).value(), Store::PutOutcome::kStored);
  }
  EXPECT_EQ(store.Put(IdOf(1), "abc", Crc32c("abc")).value(), Store::PutOutcome::kExisting);
  EXPECT_EQ(store.Put(IdOf(2), "abc", Crc32c("abc")).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(store.Get(IdOf(1))->bytes, "abc");
  EXPECT_EQ(store.Get(IdOf(1))->crc32c, Crc32c("abc"));
  EXPECT_TRUE(store.Delete(IdOf(1)).ok());
  EXPECT_TRUE(store.Delete(IdOf(1)).ok());
  EXPECT_FALSE(store.Contains(IdOf(1)));
  EXPECT_TRUE(store.Put(IdOf(2), "abc", Crc32c("abc")).ok());
  const StoreStats stats = store.stats();
  EXPECT_EQ(stats.used_bytes, 2 * value_stored_bytes);
  EXPECT_EQ(stats.values, 2u);
  EXPECT_EQ(stats.hits, 2u);
  EXPECT_EQ(stats.misses, 1u);
  EXPECT_EQ(stats.stored, 3u);
  EXPECT_EQ(stats.existing, 1u);
  EXPECT_EQ(stats.refused, 1u);
}

}  // namespace
}  // namespace troupe
