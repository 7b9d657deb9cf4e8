// Loads from and stores to the cache service, against the checking worker.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "coordinator/scheduler/block_key.h"
#include "coordinator/scheduler/scheduler_harness.h"

namespace troupe {
namespace {

using testing::FakeCache;
using testing::FakeWorker;
using testing::Harness;
using testing::SmallReplica;

// L3: blocks stored by one replica are loaded by another.
class SchedulerCache : public ::testing::Test {
 protected:
  static ReplicaInfo Replica() {
    ReplicaInfo replica = SmallReplica();
    replica.has_cache = true;
    return replica;
  }

  SequenceRequest Cached(uint64_t id, uint32_t prompt, uint32_t mask = 3) {
    SequenceRequest request = Harness::Request(id, prompt, 4);
    request.cached_groups.assign(prompt / 16, mask);
    return request;
  }

  void Fill() {
    Harness h({}, Replica(), {}, &cache_);
    h.Add(Harness::Request(1, 200, 4));
    h.RunAll();
    EXPECT_EQ(h.Status().blocks_stored(), 24u) << "12 blocks in two groups";
    h.Add(Cached(2, 200));
    h.RunAll();
    EXPECT_EQ(h.Status().blocks_stored(), 24u) << "stored once";
    expected_ = h.got[1].tokens;
  }

  FakeCache cache_;
  std::vector<uint32_t> expected_;
};

TEST_F(SchedulerCache, LoadsWhatAnotherReplicaStored) {
  Fill();
  Harness h({}, Replica(), {}, &cache_);
  h.Add(Cached(1, 200));
  h.RunAll();
  EXPECT_EQ(h.got[1].tokens, expected_);
  EXPECT_EQ(h.got[1].figures.cached_tokens, 192u);
  EXPECT_EQ(h.got[1].figures.blocks_reused_cache, 12u);
  EXPECT_EQ(h.got[1].computed, 8u + 3u);
  EXPECT_EQ(h.Status().blocks_loaded(), 12u + 3u) << "all full pages, the window's last three";
  EXPECT_EQ(h.Status().blocks_stored(), 0u) << "known to be there";
}

TEST_F(SchedulerCache, TransfersInFlightAreBounded) {
  Fill();
  FakeWorker::Config worker = {.max_transfers = 2, .transfer_end = 50};
  Harness h({.max_transfers_in_flight = 2}, Replica(), worker, &cache_);
  h.Add(Cached(1, 200));
  h.RunAll();
  EXPECT_EQ(h.got[1].tokens, expected_);
}

TEST_F(SchedulerCache, MissesAndFailuresAreComputed) {
  Fill();
  for (const bool miss : {true, false}) {
    FakeWorker::Config worker;
    (miss ? worker.load_miss : worker.transfer_failure) = 100;
    Harness h({}, Replica(), worker, &cache_);
    h.Add(Cached(1, 200));
    h.RunAll();
    EXPECT_EQ(h.got[1].tokens, expected_);
    EXPECT_EQ(h.got[1].figures.cached_tokens, 0u);
    EXPECT_EQ(h.got[1].figures.blocks_reused_cache, 0u);
  }
}

TEST_F(SchedulerCache, AMissFallsBackToWhatIsInMemory) {
  Fill();
  FakeWorker::Config worker;
  worker.load_miss = 100;
  Harness h({}, Replica(), worker, &cache_);
  h.Add(Harness::Request(1, 100, 1));
  h.RunAll();
  h.Add(Cached(2, 200));
  h.RunAll();
  EXPECT_EQ(h.got[2].tokens.size(), 4u);
  EXPECT_EQ(h.got[2].figures.cached_tokens, 96u);
  EXPECT_EQ(h.got[2].figures.blocks_reused_local, 6u);
}

TEST_F(SchedulerCache, AMissInTheMiddleKeepsWhatIsBefore) {
  Fill();
  const BlockKey root = RootKey(std::string(32, 'i'), "0", v1::GateSetting());
  const std::vector<BlockKey> keys = BlockKeys(root, Harness::Request(1, 200, 4).tokens, 16);
  cache_.erase({keys[8].ToString(), 0});
  Harness h({}, Replica(), {}, &cache_);
  SequenceRequest request = Cached(1, 200);
  h.Add(request);
  h.RunAll();
  EXPECT_EQ(h.got[1].tokens, expected_);
  EXPECT_EQ(h.got[1].figures.cached_tokens, 0u)
      << "eight full pages came, but not the window before block 8";
}

TEST_F(SchedulerCache, SlowLoadsAreNotWaitedFor) {
  Fill();
  FakeWorker::Config worker;
  worker.forward_us = [](uint32_t tokens) { return 1 + tokens / 100; };
  Harness h({}, Replica(), worker, &cache_);
  h.Add(Harness::Request(9, 256, 1, 7));  // the prefill rate is measured
  h.RunAll();
  h.Add(Cached(1, 200));
  h.RunAll();
  EXPECT_EQ(h.got[1].figures.cached_tokens, 0u);
  EXPECT_EQ(h.Status().blocks_loaded(), 0u);
}

TEST_F(SchedulerCache, CancelWhileLoadingLeaksNothing) {
  Fill();
  FakeWorker::Config worker;
  worker.transfer_end = 0;
  Harness h({}, Replica(), worker, &cache_);
  h.Add(Cached(1, 200));
  h.Plan();
  EXPECT_GT(h.plans[0].loads_size(), 0);
  EXPECT_EQ(h.plans[0].new_sequences_size(), 0);
  EXPECT_EQ(h.scheduler.NextWakeup(h.now_us), std::nullopt) << "a step is in flight";
  h.Retire();
  EXPECT_EQ(h.scheduler.NextWakeup(h.now_us), h.now_us + 1'000) << "ask for transfers";
  EXPECT_TRUE(h.scheduler.Cancel(1));
  EXPECT_EQ(h.PagesUsed(0), 12u) << "pages under transfer stay held";
  EXPECT_EQ(h.scheduler.running(), 0u);
}

}  // namespace
}  // namespace troupe
