// What the scheduler promises, one scenario each, against the checking worker on a virtual clock.
// Loads and stores are in scheduler_cache_test.cc, random workloads in scheduler_sim_test.cc.

#include "coordinator/scheduler/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "coordinator/scheduler/scheduler_harness.h"

namespace troupe {
namespace {

using testing::FakeWorker;
using testing::Harness;
using testing::SmallReplica;

TEST(Scheduler, RunsOneSequenceAStepAhead) {
  Harness h;
  h.Add(Harness::Request(1, 20, 5));
  ASSERT_TRUE(h.Plan());
  ASSERT_TRUE(h.Plan()) << "the second plan counts on the token of the first";
  EXPECT_FALSE(h.Plan()) << "two steps are in flight";
  EXPECT_EQ(h.plans[0].row_count(0), 20u);
  EXPECT_EQ(h.plans[1].row_start(0), 20u);
  EXPECT_EQ(h.plans[1].row_count(0), 1u);
  EXPECT_EQ(h.scheduler.steps_in_flight(), 2u);
  h.RunAll();
  EXPECT_EQ(h.got[1].tokens.size(), 5u);
  EXPECT_EQ(h.got[1].finish, FinishReason::kMaxTokens);
  EXPECT_EQ(h.got[1].computed, 24u) << "nothing is computed from the last token";
}

TEST(Scheduler, AStopTokenEndsAndTheRowAheadIsWasted) {
  Harness probe;
  probe.Add(Harness::Request(1, 20, 6));
  probe.RunAll();
  SequenceRequest request = Harness::Request(1, 20, 100);
  request.stop_token_ids = {probe.got[1].tokens[3]};
  const auto& before = probe.got[1].tokens;
  ASSERT_EQ(std::count(before.begin(), before.begin() + 4, before[3]), 1) << "pick another seed";

  Harness h;
  h.Add(request);
  h.RunAll();
  EXPECT_EQ(h.got[1].tokens.size(), 4u);
  EXPECT_EQ(h.got[1].finish, FinishReason::kStopToken);
  EXPECT_EQ(h.worker.tokens_computed(), h.got[1].computed + 1) << "one row was on its way";
}

// The worker could not sample for one row: that sequence is over, its pages are not offered for
// reuse, and its companion does not notice.
TEST(Scheduler, ADamagedRowEndsItsSequenceAlone) {
  Harness h;
  h.Add(Harness::Request(1, 20, 5, 1));
  h.Add(Harness::Request(2, 20, 5, 2));
  ASSERT_TRUE(h.Plan());
  v1::StepResult result = h.worker.Run();
  result.add_failed_slot(result.sampled_slot(0));
  const auto events = h.scheduler.Retire(result, h.now_us);
  ASSERT_TRUE(events.ok()) << events.status();
  ASSERT_EQ(events->size(), 2u);
  EXPECT_EQ((*events)[0].finish, FinishReason::kDamaged);
  EXPECT_FALSE((*events)[0].has_token);
  EXPECT_EQ((*events)[1].finish, FinishReason::kNone);
  EXPECT_TRUE((*events)[1].has_token);
  EXPECT_EQ(h.scheduler.running(), 1u);
  h.Add(Harness::Request(3, 20, 5, static_cast<uint32_t>((*events)[0].sequence)));
  ASSERT_TRUE(h.Plan());
  ASSERT_EQ(h.plans[1].new_sequences_size(), 1);
  EXPECT_EQ(h.plans[1].row_start(1), 0u);
}

TEST(Scheduler, WaitsForCompanionsOnlyWhenIdle) {
  Harness h({.max_batch_size = 4, .min_batch_delay_us = 5'000});
  SequenceRequest first = Harness::Request(1, 10, 50);
  first.arrival_us = h.now_us = 1'000;
  h.Add(first);
  EXPECT_FALSE(h.Plan());
  EXPECT_EQ(h.scheduler.NextWakeup(h.now_us), 6'000);
  h.now_us = 3'000;
  SequenceRequest second = Harness::Request(2, 10, 50);
  second.arrival_us = h.now_us;
  h.Add(second);
  EXPECT_FALSE(h.Plan());
  h.now_us = 6'000;
  ASSERT_TRUE(h.Plan());
  EXPECT_EQ(h.plans[0].row_slot_size(), 2);
  SequenceRequest third = Harness::Request(3, 10, 50);
  third.arrival_us = h.now_us;
  h.Add(third);
  ASSERT_TRUE(h.Plan());
  EXPECT_EQ(h.plans[1].new_sequences_size(), 1) << "no waiting while others run";
}

TEST(Scheduler, AFullBatchDoesNotWait) {
  Harness h({.max_batch_size = 2, .min_batch_delay_us = 5'000});
  h.Add(Harness::Request(1, 10, 5));
  EXPECT_FALSE(h.Plan());
  h.Add(Harness::Request(2, 10, 5));
  EXPECT_TRUE(h.Plan());
}

TEST(Scheduler, BatchIsBounded) {
  Harness h({.max_batch_size = 3});
  for (uint64_t id = 1; id <= 10; ++id) h.Add(Harness::Request(id, 10 + id, 5, id % 3));
  h.Plan();
  EXPECT_EQ(h.scheduler.running(), 3u);
  EXPECT_EQ(h.scheduler.waiting(), 7u);
  h.RunAll();
  EXPECT_EQ(h.got.size(), 10u);
}

// A long prompt arrives among chats: they get a token in every step, the steps stay short, and a
// chat that comes later is not behind the long prompt.
TEST(Scheduler, ALongPromptLeavesDecodeNearlyUnchanged) {
  ReplicaInfo replica = SmallReplica(3000, 3000);
  replica.max_context = 20'000;
  replica.max_step_tokens = 2048;
  FakeWorker::Config worker;
  worker.forward_us = [](uint32_t tokens) { return 2'000 + 20 * tokens; };
  Harness h({.mixed_prefill_tokens = 4096, .mixed_prefill_us = 2'000}, replica, worker);
  for (uint64_t id = 1; id <= 6; ++id) h.Add(Harness::Request(id, 30, 400, id));
  for (int i = 0; i < 20; ++i) h.Turn();
  h.Add(Harness::Request(100, 8'000, 3, 50));
  for (int i = 0; i < 20; ++i) h.Turn();
  const int64_t chat_us = h.now_us;
  h.Add(Harness::Request(101, 30, 3, 60));
  while (h.got[100].tokens.empty()) ASSERT_TRUE(h.Turn());

  for (uint64_t id = 1; id <= 6; ++id) {
    const std::vector<int64_t>& times = h.got[id].token_us;
    int64_t worst = 0;
    for (size_t i = 11; i < times.size(); ++i) worst = std::max(worst, times[i] - times[i - 1]);
    // A decode step of 6 rows takes 2.1 ms; what the prompt may add is 2 ms.
    EXPECT_LE(worst, 4'500) << "sequence " << id;
  }
  ASSERT_FALSE(h.got[101].token_us.empty());
  EXPECT_LE(h.got[101].token_us[0] - chat_us, 6 * 4'500) << "steps in flight, then its prompt";
}

TEST(Scheduler, PartialPrefillsShareAStep) {
  Harness h;
  h.Add(Harness::Request(1, 1000, 2, 1));
  h.Add(Harness::Request(2, 1000, 2, 2));
  h.Add(Harness::Request(3, 20, 2, 3));
  h.Plan();
  ASSERT_EQ(h.plans[0].row_slot_size(), 3);
  std::vector<uint32_t> counts(h.plans[0].row_count().begin(), h.plans[0].row_count().end());
  std::sort(counts.begin(), counts.end());
  EXPECT_EQ(counts, (std::vector<uint32_t>{20, 118, 118}));
  h.RunAll();
}

TEST(Scheduler, SharesPrefixesOfFinishedAndLiveSequences) {
  Harness h;
  h.Add(Harness::Request(1, 100, 4));
  h.RunAll();
  h.Add(Harness::Request(2, 100, 200));
  h.Turn();
  EXPECT_EQ(h.got[2].figures.cached_tokens, 96u) << "6 of 6.25 blocks; 96 % 16 == 0";
  EXPECT_EQ(h.got[2].figures.blocks_reused_local, 6u);
  EXPECT_EQ(h.got[2].computed, 4u);
  const uint32_t used = h.PagesUsed(0);
  h.Add(Harness::Request(3, 100, 4));
  h.Turn();
  h.Turn();
  EXPECT_EQ(h.PagesUsed(0), used + 1) << "shares 6 pages with the live one";
  h.RunAll();
  EXPECT_EQ(h.got[3].tokens.size(), 4u);
}

TEST(Scheduler, TheLastPromptTokenIsComputed) {
  Harness h;
  h.Add(Harness::Request(1, 64, 4));
  h.RunAll();
  h.Add(Harness::Request(2, 64, 4));
  h.RunAll();
  EXPECT_EQ(h.got[2].figures.cached_tokens, 48u);
}

TEST(Scheduler, NothingIsSharedAcrossNamespacesGatesOrWithoutCache) {
  Harness h;
  h.Add(Harness::Request(1, 100, 4));
  h.RunAll();
  SequenceRequest other = Harness::Request(2, 100, 4);
  other.tenant_namespace = "1";
  other.sampling.set_seed(FakeWorker::EncodeSeed(1, 2));
  h.Add(other);
  SequenceRequest gated = Harness::Request(3, 100, 4);
  gated.gate.set_threshold(0.5);
  h.Add(gated);
  SequenceRequest uncached = Harness::Request(4, 100, 4);
  uncached.use_cache = false;
  h.Add(uncached);
  h.RunAll();
  for (const uint64_t id : {2, 3, 4}) EXPECT_EQ(h.got[id].figures.cached_tokens, 0u);
}

TEST(Scheduler, WindowsGiveBackPages) {
  Harness h;
  h.Add(Harness::Request(1, 10, 900));
  for (int i = 0; i < 500; ++i) h.Turn();
  EXPECT_GE(h.PagesUsed(0), 30u);
  EXPECT_LE(h.PagesUsed(1), 5u) << "40 tokens span at most 4 blocks, and one ahead";
}

TEST(Scheduler, CancelFreesWithinAStep) {
  Harness h;
  h.Add(Harness::Request(1, 100, 100));
  h.Add(Harness::Request(2, 100, 100, 5));
  h.Turn();
  EXPECT_TRUE(h.scheduler.Cancel(1));
  EXPECT_FALSE(h.scheduler.Cancel(1));
  h.Plan();
  EXPECT_EQ(h.plans.back().finished_slots_size(), 1);
  h.Retire();
  h.Retire();
  EXPECT_EQ(h.scheduler.running(), 1u);
  EXPECT_LE(h.PagesUsed(0), 7u + 1u);
  h.scheduler.Cancel(2);
  h.RunAll();
}

TEST(Scheduler, AForkSharesBlocksAndCopiesTheLast) {
  Harness h;
  h.Add(Harness::Request(1, 100, 60));
  while (h.got[1].tokens.size() < 10) h.Turn();
  SequenceRequest fork = {.id = 2, .max_output_tokens = 60};
  fork.sampling.set_seed(FakeWorker::EncodeSeed(0, 99));
  ASSERT_TRUE(h.scheduler.Fork(1, fork).ok());
  const std::vector<uint32_t> common = h.got[1].tokens;
  h.got[2].tokens = common;
  const uint32_t used = h.PagesUsed(0);
  const size_t first_plan = h.plans.size();
  h.Turn();
  int copies = 0;
  for (size_t i = first_plan; i < h.plans.size(); ++i) copies += h.plans[i].copy_group_size();
  EXPECT_EQ(copies, 2) << "one page in each group";
  EXPECT_LE(h.PagesUsed(0), used + 2);
  h.RunAll();
  EXPECT_EQ(h.got[2].tokens.size(), 60u);
  EXPECT_NE(h.got[2].tokens, h.got[1].tokens);
  // The fork's rows that were computed again: only its last token.
  EXPECT_EQ(h.got[2].computed, 60 - common.size());
}

TEST(Scheduler, ForksOfAPromptWaitForItAndComputeItOnce) {
  Harness h;
  SequenceRequest parent = Harness::Request(1, 1000, 20);
  parent.use_cache = false;
  h.Add(parent);
  for (uint64_t id = 2; id <= 4; ++id) {
    SequenceRequest fork = {.id = id, .max_output_tokens = 20};
    fork.sampling.set_seed(FakeWorker::EncodeSeed(0, static_cast<uint32_t>(id)));
    ASSERT_TRUE(h.scheduler.Fork(1, fork).ok());
  }
  EXPECT_EQ(h.scheduler.waiting(), 4u);
  h.RunAll();
  for (uint64_t id = 2; id <= 4; ++id) {
    EXPECT_EQ(h.got[id].tokens.size(), 20u);
    EXPECT_EQ(h.got[id].computed, 20u) << "the last prompt token, then its own";
  }
}

TEST(Scheduler, PreemptsTheLeastUrgentAndFinishesAll) {
  // Each grows to 16 full pages; there are 30 for three.
  Harness h({}, SmallReplica(30, 200));
  for (uint64_t id = 1; id <= 3; ++id) {
    SequenceRequest request = Harness::Request(id, 50, 200, id);
    request.arrival_us = static_cast<int64_t>(id);
    h.Add(request);
  }
  h.RunAll();
  EXPECT_GT(h.Status().preemptions(), 0u);
  EXPECT_EQ(h.got[1].figures.preemptions, 0u);
  EXPECT_GT(h.got[3].figures.preemptions, 0u);
  for (uint64_t id = 1; id <= 3; ++id) EXPECT_EQ(h.got[id].tokens.size(), 200u);
}

TEST(Scheduler, HigherPriorityFirstAndWaitingCatchesUp) {
  Harness h({.max_batch_size = 1, .ageing_us_per_level = 100'000});
  const auto add = [&](uint64_t id, int32_t priority, int64_t arrival_us) {
    SequenceRequest request = Harness::Request(id, 10, 2, id);
    request.priority = priority;
    request.arrival_us = arrival_us;
    h.Add(request);
  };
  add(1, 0, 0);
  add(2, 5, 1000);
  add(3, 5, 600'000);  // later than 5 levels of ageing after the first
  h.RunAll();
  EXPECT_LT(h.got[2].token_us[0], h.got[1].token_us[0]);
  EXPECT_LT(h.got[1].token_us[0], h.got[3].token_us[0]);
}

TEST(Scheduler, BackloggedTenantsShareByWeightAndIdleSharesAreUsed) {
  Harness h({.max_batch_size = 4});
  uint64_t id = 0;
  const auto add = [&](const std::string& tenant, double weight, int count) {
    for (int i = 0; i < count; ++i) {
      ++id;
      SequenceRequest request = Harness::Request(id, 20, 20, static_cast<uint32_t>(id));
      request.tenant = tenant;
      request.tenant_weight = weight;
      h.Add(request);
    }
  };
  const auto served = [&](const std::string& tenant) {
    for (const v1::TenantStatus& status : h.scheduler.DescribeTenants()) {
      if (status.tenant() == tenant) return static_cast<double>(status.tokens_served());
    }
    return 0.0;
  };
  add("gold", 3, 300);
  add("plain", 1, 300);
  for (int i = 0; i < 600; ++i) h.Turn();
  EXPECT_NEAR(served("gold") / served("plain"), 3, 0.4);
  const double gold = served("gold");
  while (h.scheduler.waiting() > 0) h.Turn();
  h.RunAll();
  EXPECT_GT(served("gold"), gold);
  EXPECT_EQ(served("gold"), served("plain")) << "the same work in the end";
}

TEST(Scheduler, EvacuateGivesBackWhatIsToDo) {
  Harness h({.max_batch_size = 2});
  for (uint64_t id = 1; id <= 3; ++id) {
    SequenceRequest request = Harness::Request(id, 20, 30, id);
    request.arrival_us = static_cast<int64_t>(id);
    h.Add(request);
  }
  for (int i = 0; i < 7; ++i) h.Turn();
  const std::vector<SequenceRequest> requests = h.scheduler.Evacuate();
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_FALSE(h.scheduler.Plan(h.now_us));
  EXPECT_EQ(h.scheduler.Add(Harness::Request(9, 5, 5)).code(),
            absl::StatusCode::kFailedPrecondition);

  Harness whole;
  Harness other;
  for (const SequenceRequest& request : requests) {
    EXPECT_EQ(request.tokens.size(), 20 + h.got[request.id].tokens.size());
    other.got[request.id].tokens = h.got[request.id].tokens;
    other.Add(request);
    whole.Add(Harness::Request(request.id, 20, 30, static_cast<uint32_t>(request.id)));
  }
  other.RunAll();
  whole.RunAll();
  for (uint64_t id = 1; id <= 3; ++id) EXPECT_EQ(other.got[id].tokens, whole.got[id].tokens);
}

TEST(Scheduler, RefusesWhatCannotBe) {
  Harness h({.max_waiting = 2});
  h.Add(Harness::Request(1, 10, 5));
  EXPECT_EQ(h.scheduler.Add(Harness::Request(1, 10, 5)).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(h.scheduler.Add(Harness::Request(2, 1999, 5)).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(h.scheduler.Fork(9, {.id = 10}).code(), absl::StatusCode::kNotFound);
  h.Add(Harness::Request(2, 10, 5));
  EXPECT_EQ(h.scheduler.Add(Harness::Request(3, 10, 5)).code(),
            absl::StatusCode::kResourceExhausted);
  h.RunAll();
}

TEST(Scheduler, ConfigIsChecked) {
  EXPECT_TRUE(Scheduler::Config().Validate().ok());
  EXPECT_FALSE(Scheduler::Config({.max_batch_size = 0}).Validate().ok());
  EXPECT_FALSE(Scheduler::Config({.min_batch_delay_us = -1}).Validate().ok());
  EXPECT_FALSE(Scheduler::Config({.max_steps_in_flight = 0}).Validate().ok());
}

TEST(Scheduler, AResultThatAnswersNoPlanIsRefused) {
  Harness h;
  h.Add(Harness::Request(1, 20, 5));
  h.Plan();
  const v1::StepResult good = h.worker.Run();
  const auto refused = [&](auto change) {
    v1::StepResult bad = good;
    change(bad);
    return h.scheduler.Retire(bad, 0).status().code() == absl::StatusCode::kFailedPrecondition;
  };
  EXPECT_TRUE(refused([](auto& r) { r.set_epoch(6); }));
  EXPECT_TRUE(refused([](auto& r) { r.set_step(2); }));
  EXPECT_TRUE(refused([](auto& r) { r.clear_row_heads_skipped(); }));
  EXPECT_TRUE(refused([](auto& r) { r.clear_sampled_token(); }));
  EXPECT_TRUE(refused([](auto& r) { r.set_sampled_slot(0, 31); }));
  EXPECT_TRUE(refused([](auto& r) { r.add_sampled_slot(0), r.add_sampled_token(0); }));
  EXPECT_TRUE(refused([](auto& r) { r.add_logprobs(), r.add_logprobs(); }));
  EXPECT_TRUE(refused([](auto& r) { r.add_transfers()->set_id(5); }));
  EXPECT_TRUE(h.scheduler.Retire(good, 0).ok()) << "a refused result changes nothing";
  EXPECT_FALSE(h.scheduler.Retire(good, 0).ok());
}

}  // namespace
}  // namespace troupe
