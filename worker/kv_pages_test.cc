#include "worker/kv_pages.h"

#include <cstring>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

StateGroup Group(const char* name, StateGroupKind kind, int window, int entries, int layers) {
  StateGroup group;
  group.name = name;
  group.kind = kind;
  group.window_tokens = window;
  group.stride_tokens = kBlockTokens / entries;
  group.entries_per_block = entries;
  for (int layer = 0; layer < layers; ++layer) {
    StateStream stream;
    stream.layer = layer;
    stream.kv_heads = 2;
    stream.key_dim = stream.value_dim = 8;
    stream.key_offset_bytes = group.page_bytes;
    stream.value_offset_bytes = group.page_bytes + int64_t{2} * entries * 8 * 4;
    group.page_bytes += int64_t{4} * entries * 8 * 4;
    group.streams.push_back(stream);
  }
  return group;
}

class KvPagesTest : public ::testing::Test {
 protected:
  KvPagesTest() {
    std::vector<StateGroup> groups = {Group("full", StateGroupKind::kFull, 0, 64, 2),
                                      Group("window.100", StateGroupKind::kWindow, 100, 64, 1)};
    groups[1].streams[0].branch = KvBranch::kNsaWindow;
    KvPages::Options options;
    options.page_count = {8, 6};
    options.slots = 3;
    options.max_context_tokens = 500;
    pages_ = *KvPages::Create(ops_.get(), groups, options);
  }

  std::unique_ptr<Ops> ops_ = MakeReferenceOps();
  std::unique_ptr<KvPages> pages_;
};

TEST_F(KvPagesTest, LocatesStreamsInsidePages) {
  const KvLocation first = pages_->Locate(0, KvBranch::kSelf);
  const KvLocation second = pages_->Locate(1, KvBranch::kSelf);
  const std::byte* page = pages_->Page(0, 3)->data();
  EXPECT_EQ(first.k.Head(3, 0), page);
  EXPECT_EQ(first.v.Head(3, 0), page + 2 * 64 * 8 * 4);
  EXPECT_EQ(second.k.Head(3, 1), page + pages_->groups()[0].page_bytes / 2 + 64 * 8 * 4);
  EXPECT_EQ(pages_->Page(0, 3)->size(), static_cast<size_t>(pages_->groups()[0].page_bytes));
}

// Many grants at once, near and far from each other, as operations on another device see them.
TEST(KvPagesGrantTest, TablesHoldManyGrantsAtOnce) {
  constexpr int kSlots = 64;
  constexpr int kBlocks = 700;
  const std::unique_ptr<Ops> ops = MakeReferenceOps();
  KvPages::Options options;
  options.page_count = {1000};
  options.slots = kSlots;
  options.max_context_tokens = kBlocks * kBlockTokens;
  const auto pages =
      *KvPages::Create(ops.get(), {Group("full", StateGroupKind::kFull, 0, 64, 1)}, options);
  std::vector<uint32_t> want(size_t{kSlots} * kBlocks, kUngrantedPage);
  std::mt19937 random(11);
  const BlockTables tables = pages->Locate(0, KvBranch::kSelf).tables;
  for (int round = 0; round < 50; ++round) {
    std::vector<PageGrant> grants(random() % 40);
    for (PageGrant& grant : grants) {
      grant.slot = random() % kSlots;
      grant.block = random() % kBlocks;
      grant.page = random() % 1000;
      want[grant.slot * kBlocks + grant.block] = grant.page;
    }
    ASSERT_TRUE(pages->Grant(grants).ok());
    EXPECT_EQ(std::vector<uint32_t>(tables.pages, tables.pages + want.size()), want);
  }
  // Those before one that is wrong count, as they would one by one.
  EXPECT_FALSE(pages->Grant({{0, 0, 3, 7}, {0, 0, kBlocks, 1}, {0, 0, 4, 8}}).ok());
  EXPECT_EQ(tables.pages[3], 7U);
}

TEST_F(KvPagesTest, TablesHoldWhatWasGranted) {
  ASSERT_TRUE(pages_->Grant({2, 0, 0, 5}).ok());
  ASSERT_TRUE(pages_->Grant({2, 0, 7, 1}).ok());
  const BlockTables tables = pages_->Locate(0, KvBranch::kSelf).tables;
  EXPECT_EQ(tables.pages[2 * tables.stride], 5U);
  EXPECT_EQ(tables.pages[2 * tables.stride + 7], 1U);
  EXPECT_EQ(tables.pages[2 * tables.stride + 1], kUngrantedPage);
  ASSERT_TRUE(pages_->ReleaseSlot(2).ok());
  EXPECT_EQ(tables.pages[2 * tables.stride], kUngrantedPage);
  EXPECT_EQ(tables.pages[2 * tables.stride + 7], kUngrantedPage);
}

TEST_F(KvPagesTest, RefusesWhatLiesOutside) {
  EXPECT_THAT(pages_->Grant({3, 0, 0, 0}).message(), HasSubstr("slot 3 is out of range"));
  EXPECT_THAT(pages_->Grant({0, 2, 0, 0}).message(), HasSubstr("group 2 is out of range"));
  EXPECT_THAT(pages_->Grant({0, 0, 8, 0}).message(), HasSubstr("block 8 is out of range"));
  EXPECT_THAT(pages_->Grant({0, 1, 0, 6}).message(), HasSubstr("page 6 is out of range"));
  EXPECT_EQ(pages_->ReleaseSlot(3).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(pages_->Page(1, 6).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(pages_->CopyPages(0, {1}, {8}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(pages_->CopyPages(0, {1, 2}, {2, 3}).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(KvPagesTest, ARowNeedsItsBlocks) {
  for (uint32_t block = 0; block < 3; ++block) {
    ASSERT_TRUE(pages_->Grant({0, 0, block, block}).ok());
  }
  ASSERT_TRUE(pages_->Grant({0, 1, 1, 0}).ok());
  ASSERT_TRUE(pages_->Grant({0, 1, 2, 1}).ok());
  // Token 163 sees 64 .. 163: blocks 1 and 2 of the window group.
  EXPECT_TRUE(pages_->CheckRow(0, 163, 29).ok());
  EXPECT_THAT(pages_->CheckRow(0, 162, 1).message(), HasSubstr("block 0 of group window.100"));
  EXPECT_THAT(pages_->CheckRow(0, 163, 30).message(), HasSubstr("block 3 of group full"));
  EXPECT_EQ(pages_->CheckRow(0, 499, 2).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(pages_->CheckRow(1, 0, 1).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(KvPagesTest, GrantsInAnyOrderMakeAPrefix) {
  ASSERT_TRUE(pages_->Grant({0, 1, 0, 0}).ok());
  ASSERT_TRUE(pages_->Grant({0, 1, 1, 1}).ok());
  ASSERT_TRUE(pages_->Grant({0, 0, 1, 1}).ok());
  EXPECT_FALSE(pages_->CheckRow(0, 64, 1).ok());
  ASSERT_TRUE(pages_->Grant({0, 0, 0, 0}).ok());
  EXPECT_TRUE(pages_->CheckRow(0, 64, 1).ok());
}

TEST_F(KvPagesTest, CopiesWholePages) {
  const absl::Span<std::byte> from = *pages_->Page(0, 1);
  std::memset(from.data(), 7, from.size());
  ASSERT_TRUE(pages_->CopyPages(0, {1}, {4}).ok());
  ops_->Synchronize();
  EXPECT_EQ(*pages_->Page(0, 4), from);
  EXPECT_EQ(*pages_->Page(0, 3)->data(), std::byte{0});
}

TEST(PlanPagesTest, WindowsAndOneLongContextComeFirst) {
  const std::vector<StateGroup> groups = {Group("full", StateGroupKind::kFull, 0, 64, 4),
                                          Group("window.256", StateGroupKind::kWindow, 256, 64, 4)};
  PagePlanOptions options;
  options.max_context_tokens = 4096;
  options.sequences = 10;
  options.step_tokens = 512;
  const int64_t page = groups[0].page_bytes;
  options.budget_bytes = (64 + 10 * 6 + 8) * page;
  EXPECT_THAT(*PlanPages(groups, options), ::testing::ElementsAre(64, 68));
  --options.budget_bytes;
  EXPECT_EQ(PlanPages(groups, options).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(PlanPagesTest, WhatIsLeftIsSharedAndTheBudgetHolds) {
  const std::vector<StateGroup> groups = {
      Group("full", StateGroupKind::kFull, 0, 64, 4),
      Group("window.256", StateGroupKind::kWindow, 256, 64, 8),
      Group("compressed.16", StateGroupKind::kCompressed, 0, 4, 4)};
  PagePlanOptions options;
  options.max_context_tokens = 4096;
  options.sequences = 4;
  options.budget_bytes = int64_t{1} << 30;
  const std::vector<uint32_t> pages = *PlanPages(groups, options);
  int64_t bytes = 0;
  for (size_t g = 0; g < groups.size(); ++g) bytes += pages[g] * groups[g].page_bytes;
  EXPECT_LE(bytes, options.budget_bytes);
  EXPECT_GT(bytes, options.budget_bytes - 4 * groups[1].page_bytes);
  EXPECT_EQ(pages[0], pages[2]);  // a block needs a page in both
  EXPECT_GT(pages[0], 2 * pages[1]);
}

TEST(PlanPagesTest, AWindowSpansOneBlockMoreThanItFills) {
  EXPECT_EQ(WindowBlocks(Group("w", StateGroupKind::kWindow, 256, 64, 1)), 5);
  EXPECT_EQ(WindowBlocks(Group("w", StateGroupKind::kWindow, 32, 64, 1)), 2);
  EXPECT_EQ(WindowBlocks(Group("w", StateGroupKind::kWindow, 1, 64, 1)), 1);
}

}  // namespace
}  // namespace troupe
