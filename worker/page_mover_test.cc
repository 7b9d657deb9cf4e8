#include "worker/page_mover.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "base/check.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

std::vector<StateGroup> Groups() {
  StateGroup full;
  full.name = "full";
  full.page_bytes = 4096;
  StateGroup window = full;
  window.name = "window";
  window.kind = StateGroupKind::kWindow;
  window.window_tokens = 64;
  window.page_bytes = 1024;
  return {full, window};
}

class PageMoverTest : public ::testing::Test {
 protected:
  PageMoverTest() : ops_(MakeCpuOps({.threads = 1})), copies_(ops_->MakeSideCopies()) {
    auto pages = KvPages::Create(ops_.get(), Groups(),
                                 {.page_count = {8, 8}, .slots = 2, .max_context_tokens = 128});
    CHECK_OK(pages);
    pages_ = *std::move(pages);
    auto host_pages = HostPages::Create(*copies_, Groups(), {4, 6});
    CHECK_OK(host_pages);
    host_pages_ = *std::move(host_pages);
  }

  void Set(uint32_t group, uint32_t page, int value) {
    const auto bytes = *pages_->Page(group, page);
    std::memset(bytes.data(), value, bytes.size());
  }
  int Get(uint32_t group, uint32_t page) {
    return static_cast<int>(pages_->Page(group, page)->back());
  }
  static void Spill(v1::StepPlan& plan, uint32_t group, uint32_t page, uint32_t host_page) {
    plan.add_spill_group(group);
    plan.add_spill_page(page);
    plan.add_spill_host_page(host_page);
  }
  static void Fill(v1::StepPlan& plan, uint64_t id, uint32_t group, uint32_t host_page,
                   uint32_t page) {
    plan.add_fill_id(id);
    plan.add_fill_group(group);
    plan.add_fill_host_page(host_page);
    plan.add_fill_page(page);
  }

  std::unique_ptr<Ops> ops_;
  std::unique_ptr<SideCopies> copies_;
  std::unique_ptr<KvPages> pages_;
  std::unique_ptr<HostPages> host_pages_;
};

TEST_F(PageMoverTest, PagesChangePlaces) {
  PageMover mover(pages_.get(), host_pages_.get(), copies_.get(), &RealClock::Get());
  mover.Reset(1);
  Set(0, 3, 30);
  Set(0, 4, 40);
  Set(1, 3, 31);
  v1::StepPlan plan;
  plan.set_step(1);
  Spill(plan, 0, 3, 2);
  Spill(plan, 0, 4, 0);
  Spill(plan, 1, 3, 5);
  Fill(plan, 7, 0, /*host_page=*/2, /*page=*/4);
  Fill(plan, 8, 1, /*host_page=*/5, /*page=*/0);
  ASSERT_TRUE(mover.Start(plan, {}).ok());
  EXPECT_EQ(Get(0, 4), 30);
  EXPECT_EQ(Get(1, 0), 31);
  EXPECT_EQ(static_cast<int>(*host_pages_->Page(0, 0)), 40);
  v1::StepResult result;
  mover.Report(result);
  ASSERT_THAT(result.transfers(), SizeIs(2));
  EXPECT_EQ(result.transfers(0).id(), 7U);
  EXPECT_EQ(result.transfers(0).bytes(), 4096U);
  EXPECT_EQ(result.transfers(1).outcome(), v1::TransferDone::OUTCOME_DONE);
  result.Clear();
  mover.Report(result);
  EXPECT_THAT(result.transfers(), SizeIs(0));
}

TEST_F(PageMoverTest, OnlyPagesThatFillsTakeLeaveFromWhereTheyAre) {
  v1::StepPlan plan;
  Spill(plan, 0, 3, 2);
  Spill(plan, 0, 4, 0);
  Fill(plan, 7, 0, 2, 4);
  const auto moves = PlanMoves(plan, *pages_, host_pages_.get());
  ASSERT_TRUE(moves.ok()) << moves.status();
  ASSERT_THAT(moves->out_at_once, SizeIs(1));
  EXPECT_EQ(moves->out_at_once[0].device, pages_->Page(0, 3)->data());
  ASSERT_THAT(moves->out_of_fill, SizeIs(1));
  EXPECT_EQ(moves->out_of_fill[0].device, pages_->Page(0, 4)->data());
  EXPECT_EQ(moves->in_bytes, 4096);
}

TEST_F(PageMoverTest, WhatIsNotThereIsRefused) {
  v1::StepPlan plan;
  Spill(plan, 0, 3, 4);
  EXPECT_THAT(std::string(PlanMoves(plan, *pages_, host_pages_.get()).status().message()),
              HasSubstr("found host page 4 of group 0, which has 4"));
  EXPECT_THAT(std::string(PlanMoves(plan, *pages_, nullptr).status().message()),
              HasSubstr("which has 0"));
  plan.Clear();
  Fill(plan, 1, 1, 0, 8);
  EXPECT_EQ(PlanMoves(plan, *pages_, host_pages_.get()).status().code(),
            absl::StatusCode::kInvalidArgument);
  plan.Clear();
  Fill(plan, 1, 2, 0, 0);
  EXPECT_EQ(PlanMoves(plan, *pages_, host_pages_.get()).status().code(),
            absl::StatusCode::kInvalidArgument);
  plan.Clear();
  Fill(plan, 1, 1, 0, 0);
  plan.add_fill_id(2);
  EXPECT_THAT(std::string(PlanMoves(plan, *pages_, host_pages_.get()).status().message()),
              HasSubstr("fill_group entries: found 1, wanted 2"));
}

TEST(HostPages, GroupsShareTheBudgetAsTheyShareTheDevice) {
  const auto pages = PlanHostPages(Groups(), {10, 40}, 800 * 1024);
  ASSERT_TRUE(pages.ok()) << pages.status();
  EXPECT_THAT(*pages, ElementsAre(100, 400));
  const auto none = PlanHostPages(Groups(), {10, 40}, 4096);
  EXPECT_EQ(none.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("leaves group full no page"));
}

}  // namespace
}  // namespace troupe
