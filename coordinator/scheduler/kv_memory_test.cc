// Page pools, the prefix index, and both together; the book of transfers.

#include "coordinator/scheduler/kv_memory.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "coordinator/scheduler/transfer_book.h"

namespace troupe {
namespace {

BlockKey Key(uint32_t n) { return NextKey(BlockKey(), {n}); }

TEST(PagePool, GivesEachPageOnce) {
  PagePool pool(3);
  PrefixEntry* evicted = nullptr;
  std::vector<bool> seen(3);
  for (int i = 0; i < 3; ++i) {
    const PageId page = pool.Allocate(&evicted);
    ASSERT_LT(page, 3u);
    EXPECT_FALSE(seen[page]);
    seen[page] = true;
    EXPECT_EQ(evicted, nullptr);
  }
  EXPECT_EQ(pool.available(), 0u);
  EXPECT_EQ(pool.used(), 3u);
}

TEST(PagePool, APageInFlightCoolsFirst) {
  PagePool pool(1);
  PrefixEntry* evicted = nullptr;
  const PageId page = pool.Allocate(&evicted);
  pool.Unref(page, 7);
  EXPECT_EQ(pool.available(), 0u);
  EXPECT_EQ(pool.cooling(), 1u);
  pool.Retire(6);
  EXPECT_EQ(pool.available(), 0u);
  pool.Retire(7);
  EXPECT_EQ(pool.available(), 1u);
  EXPECT_EQ(pool.cooling(), 0u);
}

TEST(PagePool, TheLatestUseOfAnyHolderCounts) {
  PagePool pool(1);
  PrefixEntry* evicted = nullptr;
  const PageId page = pool.Allocate(&evicted);
  pool.Ref(page);
  pool.Unref(page, 9);
  pool.Unref(page, 2);
  pool.Retire(8);
  EXPECT_EQ(pool.available(), 0u);
  pool.Retire(9);
  EXPECT_EQ(pool.available(), 1u);
}

TEST(PagePool, ACoolingPageMayBeSharedAgain) {
  PagePool pool(1);
  PrefixEntry entry;
  PrefixEntry* evicted = nullptr;
  const PageId page = pool.Allocate(&evicted);
  pool.Attach(page, &entry);
  pool.Unref(page, 3);
  pool.Ref(page);
  pool.Retire(3);
  EXPECT_EQ(pool.available(), 0u);
  EXPECT_EQ(pool.cooling(), 0u);
  pool.Unref(page, 5);
  pool.Ref(page);
  pool.Unref(page, 6);
  EXPECT_EQ(pool.cooling(), 1u);
  pool.Retire(5);
  EXPECT_EQ(pool.available(), 0u);
  pool.Retire(6);
  EXPECT_EQ(pool.available(), 1u);
  EXPECT_EQ(pool.Allocate(&evicted), page);
  EXPECT_EQ(evicted, &entry);
}

TEST(KvMemory, EvictsTheLongestReleasedFirst) {
  ReplicaInfo replica;
  replica.groups = {{.name = "a", .page_count = 3}};
  KvMemory memory(replica);
  for (uint32_t i = 0; i < 3; ++i) {
    const PageId page = memory.Allocate(0);
    memory.Publish(Key(i), 0, page);
    memory.Unref(0, page, 0);
  }
  EXPECT_EQ(memory.pool(0).cached(), 3u);
  const PageId kept = memory.Find(Key(0))->pages[0];
  memory.Ref(0, kept);
  memory.Unref(0, kept, 0);  // used again: now the last in line
  memory.Allocate(0);
  EXPECT_EQ(memory.Held(Key(1)), 0u);
  EXPECT_EQ(memory.Held(Key(0)), 1u);
  memory.Allocate(0);
  EXPECT_EQ(memory.Held(Key(2)), 0u);
  EXPECT_EQ(memory.Held(Key(0)), 1u);
}

TEST(KvMemory, ASecondPageOfTheSameBlockStaysPrivate) {
  ReplicaInfo replica;
  replica.groups = {{.name = "a", .page_count = 2}};
  KvMemory memory(replica);
  const PageId first = memory.Allocate(0);
  const PageId second = memory.Allocate(0);
  memory.Publish(Key(1), 0, first);
  EXPECT_EQ(memory.Publish(Key(1), 0, second).pages[0], first);
  memory.Unref(0, second, 0);
  EXPECT_EQ(memory.pool(0).cached(), 0u) << "free, not cached";
  memory.Unref(0, first, 0);
  EXPECT_EQ(memory.pool(0).cached(), 1u);
}

TEST(KvMemory, GroupsLoseTheirPagesOneByOne) {
  ReplicaInfo replica;
  replica.groups = {{.name = "a", .page_count = 1}, {.name = "b", .page_count = 1}};
  KvMemory memory(replica);
  for (uint32_t g = 0; g < 2; ++g) {
    const PageId page = memory.Allocate(g);
    memory.Publish(Key(1), g, page);
    memory.Unref(g, page, 0);
  }
  EXPECT_EQ(memory.Held(Key(1)), 3u);
  memory.Allocate(0);
  EXPECT_EQ(memory.Held(Key(1)), 2u);
  memory.Allocate(1);
  EXPECT_EQ(memory.Find(Key(1)), nullptr);
}

TEST(KvMemory, ABlockThatLosesItsPageGoesToHostMemory) {
  ReplicaInfo replica;
  replica.groups = {{.name = "a", .page_count = 1, .host_page_count = 2}};
  KvMemory memory(replica);
  const auto compute = [&](uint32_t block) {
    const PageId page = memory.Allocate(0);
    memory.Publish(Key(block), 0, page);
    memory.Unref(0, page, 0);
  };
  const auto all = [](const KvMemory::Spill&) { return true; };
  compute(1);
  EXPECT_FALSE(memory.has_spills());
  compute(2);
  EXPECT_EQ(memory.Held(Key(1)), 0u);
  EXPECT_EQ(memory.HeldAnywhere(Key(1)), 1u);
  const std::vector<KvMemory::Spill> spills = memory.TakeSpills(all);
  ASSERT_EQ(spills.size(), 1u);
  EXPECT_EQ(spills[0].page, 0u);
  EXPECT_EQ(spills[0].host_page, memory.Find(Key(1))->host_pages[0]);
  // What is read stays; else the longest unused makes room.
  memory.RefHost(0, spills[0].host_page);
  compute(3);
  memory.TakeSpills(all);
  compute(4);
  memory.TakeSpills(all);
  EXPECT_EQ(memory.HeldAnywhere(Key(1)), 1u);
  EXPECT_EQ(memory.Find(Key(2)), nullptr);
  memory.UnrefHost(0, spills[0].host_page);
  // A block that is there already needs no spill, and none is made where that does not pay.
  const PageId filled = memory.Allocate(0);
  memory.TakeSpills(all);
  memory.Publish(Key(1), 0, filled);
  memory.Unref(0, filled, 0);
  EXPECT_EQ(memory.Held(Key(1)), 1u);
  compute(5);
  EXPECT_FALSE(memory.has_spills());
  EXPECT_EQ(memory.HeldAnywhere(Key(1)), 1u);
  memory.SetSpilling(false);
  compute(6);
  EXPECT_FALSE(memory.has_spills());
  EXPECT_EQ(memory.Find(Key(5)), nullptr);
}

TEST(KvMemory, AHostPageWhoseSpillWaitsIsNobodyElses) {
  ReplicaInfo replica;
  replica.groups = {{.name = "a", .page_count = 2, .host_page_count = 1}};
  KvMemory memory(replica);
  for (uint32_t block = 1; block <= 2; ++block) {
    const PageId page = memory.Allocate(0);
    memory.Publish(Key(block), 0, page);
    memory.Unref(0, page, 0);
  }
  memory.Allocate(0);
  EXPECT_TRUE(memory.TakeSpills([](const KvMemory::Spill&) { return false; }).empty());
  memory.Allocate(0);  // finds no host page, so this block is lost
  EXPECT_EQ(memory.HeldAnywhere(Key(1)), 1u);
  EXPECT_EQ(memory.Find(Key(2)), nullptr);
  EXPECT_EQ(memory.TakeSpills([](const KvMemory::Spill&) { return true; }).size(), 1u);
  EXPECT_EQ(memory.host_pool(0).cached(), 1u);
}

// Random use against a plain model: counts add up, contents are never confused.
TEST(KvMemory, RandomUseKeepsItsInvariants) {
  ReplicaInfo replica;
  replica.groups = {{.name = "a", .page_count = 12}};
  for (uint32_t seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    KvMemory memory(replica);
    std::vector<PageId> held;              // one element a reference
    std::vector<uint32_t> content(12, 0);  // the model's idea of what a page carries
    uint32_t next_content = 1;
    uint64_t step = 1;
    for (int round = 0; round < 500; ++round) {
      const uint32_t action = random() % 5;
      if (action == 0 && memory.pool(0).available() > 0) {
        const PageId page = memory.Allocate(0);
        content[page] = next_content++;
        held.push_back(page);
      } else if (action == 1 && !held.empty()) {
        const PageId page = held[random() % held.size()];
        if (memory.Held(Key(content[page])) == 0) memory.Publish(Key(content[page]), 0, page);
      } else if (action == 2 && !held.empty()) {
        const size_t at = random() % held.size();
        memory.Unref(0, held[at], step - random() % 2);
        held.erase(held.begin() + static_cast<std::ptrdiff_t>(at));
      } else if (action == 3) {
        memory.Retire(step++);
      } else {
        const uint32_t wanted = 1 + random() % next_content;
        const PrefixEntry* entry = memory.Find(Key(wanted));
        if (entry == nullptr) continue;
        ASSERT_EQ(content[entry->pages[0]], wanted) << "seed " << seed;
        memory.Ref(0, entry->pages[0]);
        held.push_back(entry->pages[0]);
      }
      const PagePool& pool = memory.pool(0);
      ASSERT_EQ(pool.used() + pool.available(), pool.total());
      ASSERT_LE(pool.cached(), pool.available());
    }
    for (const PageId page : held) memory.Unref(0, page, step);
    memory.Retire(step);
    EXPECT_EQ(memory.pool(0).used(), 0u) << "seed " << seed;
  }
}

TEST(TransferBook, LoadsGoFirstAndOldStoresAreDropped) {
  TransferBook book;
  EXPECT_FALSE(book.AddStore({.key = Key(1)}, 2));
  EXPECT_FALSE(book.AddStore({.key = Key(2)}, 2));
  const std::optional<Transfer> dropped = book.AddStore({.key = Key(3)}, 2);
  ASSERT_TRUE(dropped);
  EXPECT_EQ(dropped->key, Key(1));
  book.AddLoad({.key = Key(4), .load_batch = 1});
  book.AddLoad({.key = Key(5), .load_batch = 2});
  book.DropLoads(1);
  EXPECT_EQ(book.TakeWaiting()->key, Key(5));
  EXPECT_EQ(book.TakeWaiting()->key, Key(2));
  const uint64_t id = book.Start(*book.TakeWaiting());
  EXPECT_TRUE(book.IsUnderWay(id));
  EXPECT_FALSE(book.has_waiting());
  EXPECT_EQ(book.End(id).key, Key(3));
  EXPECT_EQ(book.under_way(), 0u);
}

}  // namespace
}  // namespace troupe
