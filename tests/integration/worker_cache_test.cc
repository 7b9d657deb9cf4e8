// Blocks that one worker stores let another go on as if it had computed them.

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <future>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "cache_client/cache_client.h"
#include "cache_service/server.h"
#include "worker/server.h"
#include "worker/testing/session_client.h"

namespace troupe {
namespace {

using Outcomes = std::map<uint64_t, v1::TransferDone::Outcome>;  // by the transfer's id

constexpr uint32_t kTokensOfBlock = 64;
constexpr uint32_t kWholeBlocks = 6;  // more than the windows are long
constexpr uint32_t kPromptTokens = kWholeBlocks * kTokensOfBlock + 9;
constexpr uint32_t kCapacity = 512;
constexpr uint32_t kGenerated = 8;

struct Generated {
  std::vector<uint32_t> tokens;
  std::vector<float> logprobs;
  bool operator==(const Generated&) const = default;
};

class WorkerCacheTest : public ::testing::Test {
 protected:
  WorkerCacheTest() : dir_(absl::StrCat(::testing::TempDir(), "worker_cache_test.", getpid())) {
    std::filesystem::remove_all(dir_);
    std::filesystem::create_directories(dir_);
  }
  ~WorkerCacheTest() override { std::filesystem::remove_all(dir_); }

  std::unique_ptr<CacheServer> StartCache() {
    CacheServer::Config config;
    config.rpc.listen = CacheAddress();
    config.store.data_dir = dir_ + "/cache";
    auto cache = CacheServer::Start(config);
    CHECK_OK(cache);
    return *std::move(cache);
  }

  std::unique_ptr<WorkerServer> StartWorker(const std::string& kv_cache_dtype = "auto") {
    WorkerServer::Config config;
    config.rpc.listen = absl::StrCat("unix:", dir_, "/worker.sock");
    config.coordinator.clear();
    config.cache = CacheAddress();
    const char* root = std::getenv("TROUPE_SOURCE_DIR");
    config.rank.model = absl::StrCat(root == nullptr ? "." : root, "/models/abacus");
    config.rank.kv_memory_bytes = 64 << 20;
    config.rank.max_rows = 2;
    config.rank.max_context = 1024;
    config.rank.kv_cache_dtype = kv_cache_dtype;
    auto worker = WorkerServer::Start(config);
    CHECK_OK(worker);
    return *std::move(worker);
  }

  std::string CacheAddress() const { return absl::StrCat("unix:", dir_, "/cache.sock"); }

  const std::string dir_;
};

v1::NewSequence Prompt() {
  std::vector<uint32_t> tokens(kPromptTokens);
  for (uint32_t i = 0; i < kPromptTokens; ++i) tokens[i] = 8 + (i * i + 7 * i) % 500;
  v1::NewSequence sequence = SessionClient::MakeSequence(0, tokens);
  sequence.mutable_gate()->set_threshold(0.3F);
  sequence.mutable_sampling()->set_logprobs(0);
  return sequence;
}

// `plan` has the sequence and its pages; computes it from `start` on.
Generated Generate(SessionClient& session, v1::StepPlan plan, uint32_t start) {
  Generated generated;
  uint32_t end = kPromptTokens;
  while (generated.tokens.size() < kGenerated) {
    SessionClient::AddRow(plan, 0, start, end - start);
    const auto result = session.Run(plan);
    CHECK_OK(result);
    generated.tokens.push_back(result->sampled_token(0));
    generated.logprobs.push_back(result->logprobs(0).logprob());
    start = end++;
    plan = session.NextPlan();
  }
  return generated;
}

v1::BlockTransfer Transfer(uint64_t id, uint32_t group, uint32_t block, uint32_t page) {
  v1::BlockTransfer transfer;
  transfer.set_id(id);
  transfer.set_block_key(std::string(32, static_cast<char>('a' + block)));
  transfer.set_tenant_namespace("tenant");
  transfer.set_group(group);
  transfer.set_page(page);
  return transfer;
}

// Asks with empty plans until `count` transfers have ended.
Outcomes Await(SessionClient& session, v1::StepPlan plan, size_t count) {
  Outcomes outcomes;
  const absl::Time limit = absl::Now() + absl::Seconds(60);
  while (absl::Now() < limit) {
    const auto result = session.Run(plan);
    CHECK_OK(result);
    for (const v1::TransferDone& done : result->transfers()) outcomes[done.id()] = done.outcome();
    if (outcomes.size() == count) break;
    plan = session.NextPlan();
  }
  return outcomes;
}

// With the dtype of keys and values.
class WorkerCacheDTypeTest : public WorkerCacheTest,
                             public ::testing::WithParamInterface<const char*> {};

TEST_P(WorkerCacheDTypeTest, AnotherWorkerGoesOnFromStoredBlocksBitByBit) {
  Generated want;
  uint64_t transfers = 0;
  {
    const auto cache = StartCache();
    const auto worker = StartWorker(GetParam());
    SessionClient session(worker->address());
    ASSERT_TRUE(session.Hello(1).ok());
    v1::StepPlan plan = session.NextPlan();
    session.Add(plan, Prompt(), kCapacity);
    want = Generate(session, std::move(plan), 0);
    plan = session.NextPlan();
    for (int group = 0; group < worker->info().groups_size(); ++group) {
      for (uint32_t block = 0; block < kWholeBlocks; ++block) {
        *plan.add_stores() = Transfer(++transfers, group, block, /*page=*/block);
      }
    }
    const Outcomes outcomes = Await(session, std::move(plan), transfers);
    ASSERT_EQ(outcomes.size(), transfers);
    for (const auto& [id, outcome] : outcomes) EXPECT_EQ(outcome, v1::TransferDone::OUTCOME_DONE);
  }
  // Everything was dropped, the cache service's memory as well.
  const auto cache = StartCache();
  const auto worker = StartWorker(GetParam());
  SessionClient session(worker->address());
  ASSERT_TRUE(session.Hello(1).ok());
  const int groups = worker->info().groups_size();
  // Not where they were.
  const auto page_of = [](uint32_t block) {
    return (5 * block + 3) % (kCapacity / kTokensOfBlock);
  };
  v1::StepPlan plan = session.NextPlan();
  uint64_t id = 0;
  for (int group = 0; group < groups; ++group) {
    for (uint32_t block = 0; block < kWholeBlocks; ++block) {
      *plan.add_loads() = Transfer(++id, group, block, page_of(block));
    }
  }
  const Outcomes outcomes = Await(session, std::move(plan), transfers);
  ASSERT_EQ(outcomes.size(), transfers);
  for (const auto& [transfer, outcome] : outcomes) {
    EXPECT_EQ(outcome, v1::TransferDone::OUTCOME_DONE);
  }
  plan = session.NextPlan();
  *plan.add_new_sequences() = Prompt();
  for (int group = 0; group < groups; ++group) {
    for (uint32_t block = 0; block < kCapacity / kTokensOfBlock; ++block) {
      plan.add_grant_slot(0);
      plan.add_grant_group(group);
      plan.add_grant_block(block);
      plan.add_grant_page(page_of(block));
    }
  }
  EXPECT_EQ(Generate(session, std::move(plan), kWholeBlocks * kTokensOfBlock), want);
}

INSTANTIATE_TEST_SUITE_P(All, WorkerCacheDTypeTest, ::testing::Values("auto", "fp8"));

TEST_F(WorkerCacheTest, BlocksOfAnotherDTypeAreMisses) {
  const auto cache = StartCache();
  std::string identity;
  for (const char* kv_cache_dtype : {"fp8", "auto"}) {
    const auto worker = StartWorker(kv_cache_dtype);
    EXPECT_NE(worker->info().identity(), identity);
    identity = worker->info().identity();
    SessionClient session(worker->address());
    ASSERT_TRUE(session.Hello(1).ok());
    v1::StepPlan plan = session.NextPlan();
    *plan.add_loads() = Transfer(1, 0, 0, 0);
    EXPECT_EQ(Await(session, std::move(plan), 1), (Outcomes{{1, v1::TransferDone::OUTCOME_MISS}}));
    plan = session.NextPlan();
    *plan.add_stores() = Transfer(2, 0, 0, 1);
    EXPECT_EQ(Await(session, std::move(plan), 1), (Outcomes{{2, v1::TransferDone::OUTCOME_DONE}}));
  }
}

TEST_F(WorkerCacheTest, WhatIsNotThereOrNotWholeIsAMiss) {
  const auto cache = StartCache();
  const auto worker = StartWorker();
  {
    const auto client = CacheClient::Connect(CacheAddress(), {});
    std::vector<CacheClient::Value> values(1);
    values[0] = {{std::string(32, 'b'), "tenant", 0}, "shorter than a page"};
    std::promise<absl::Status> stored;
    client->Put(worker->info().identity(), std::move(values),
                [&stored](const auto& counts) { stored.set_value(counts.status()); });
    ASSERT_TRUE(stored.get_future().get().ok());
  }
  SessionClient session(worker->address());
  ASSERT_TRUE(session.Hello(1).ok());
  v1::StepPlan plan = session.NextPlan();
  *plan.add_loads() = Transfer(1, 0, 0, 0);
  *plan.add_loads() = Transfer(2, 0, 1, 1);
  EXPECT_EQ(Await(session, std::move(plan), 2),
            (Outcomes{{1, v1::TransferDone::OUTCOME_MISS}, {2, v1::TransferDone::OUTCOME_MISS}}));
}

TEST_F(WorkerCacheTest, ACacheThatCannotBeReachedFailsTransfersOnly) {
  const auto worker = StartWorker();
  SessionClient session(worker->address());
  ASSERT_TRUE(session.Hello(1).ok());
  v1::StepPlan plan = session.NextPlan();
  *plan.add_loads() = Transfer(1, 0, 0, 0);
  *plan.add_stores() = Transfer(2, 0, 1, 1);
  EXPECT_EQ(Await(session, std::move(plan), 2), (Outcomes{{1, v1::TransferDone::OUTCOME_FAILED},
                                                          {2, v1::TransferDone::OUTCOME_FAILED}}));
  plan = session.NextPlan();
  session.Add(plan, Prompt(), kCapacity);
  EXPECT_EQ(Generate(session, std::move(plan), 0).tokens.size(), kGenerated);
}

}  // namespace
}  // namespace troupe
