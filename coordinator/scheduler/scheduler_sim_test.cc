// The scheduler against the checking worker under random workloads. Every seed is one run; a
// failure prints its seed, and TROUPE_SEED=<seed> replays that one alone.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/check.h"
#include "coordinator/scheduler/fake_worker.h"
#include "coordinator/scheduler/scheduler.h"

namespace troupe {
namespace {

using testing::ExpectedToken;
using testing::FakeCache;
using testing::FakeWorker;
using testing::NextTag;
using testing::RootTag;
using testing::Tag;

// What a sequence must give, computed without any scheduler.
struct Expected {
  std::vector<uint32_t> output;
  std::vector<uint32_t> received;
  FinishReason finish = FinishReason::kNone;
  FinishReason finished_as = FinishReason::kNone;
  bool cancelled = false;
  Urgency urgency;
  uint32_t preemptions = 0;
};

class Simulation {
 public:
  explicit Simulation(uint32_t seed) : random_(seed), seed_(seed) {
    RandomReplica();
    RandomConfig();
    StartWorker();
  }

  void Run() {
    const uint32_t sequences = 3 + Random(25);
    uint32_t added = 0;
    // Far more than any run needs: what takes longer is stuck or starving.
    for (uint32_t round = 0; round < 60'000; ++round) {
      now_us_ += Random(3) == 0 ? Random(400) : 0;
      if (added < sequences && Random(4) == 0) {
        AddRandom(++added);
      } else if (Random(60) == 0) {
        CancelRandom();
      } else if (Random(25) == 0 && added < sequences) {
        ForkRandom(++added);
      } else if (evacuate_ && Random(100) == 0) {
        MoveToAnotherWorker();
      }
      Work();
      if (::testing::Test::HasFailure()) return;
      if (added == sequences && IsIdle()) {
        CheckEnd();
        return;
      }
    }
    FAIL() << "not done: " << scheduler_->running() << " running, " << scheduler_->waiting()
           << " waiting";
  }

  uint64_t preemptions() const { return preemptions_; }
  uint64_t reused() const { return reused_; }
  uint64_t loaded() const { return loaded_; }
  uint64_t filled() const { return filled_; }
  uint64_t copies() const { return copies_; }

 private:
  uint32_t Random(uint32_t below) { return static_cast<uint32_t>(random_() % below); }

  void RandomReplica() {
    const uint32_t block_tokens = Random(2) == 0 ? 4 : 8;
    max_context_ = 24 + Random(60);
    replica_ = {.worker = "fake",
                .identity = std::string(32, 'i'),
                .block_tokens = block_tokens,
                .max_rows = 1 + Random(10),
                .max_step_tokens = 4 + Random(60),
                .max_context = max_context_,
                .has_cache = Random(3) != 0};
    const uint32_t blocks = (max_context_ + block_tokens - 1) / block_tokens;
    const uint32_t groups = 1 + Random(3);
    for (uint32_t g = 0; g < groups; ++g) {
      KvGroupInfo group = {.name = std::to_string(g), .page_bytes = 4096};
      if (Random(2) == 0) group.window_tokens = 1 + Random(20);
      // From barely one sequence to plenty.
      group.page_count = (Random(3) == 0 ? 1 : 2) + blocks * (1 + Random(Random(2) == 0 ? 2 : 6));
      if (group.window_tokens != 0 && Random(2) == 0) {
        group.page_count = (group.window_tokens + block_tokens - 1) / block_tokens + 2 + Random(8);
      }
      replica_.groups.push_back(group);
    }
    // From none to plenty, and not alike.
    if (Random(2) == 0) {
      for (KvGroupInfo& group : replica_.groups) group.host_page_count = 1 + Random(3 * blocks);
    }
  }

  void RandomConfig() {
    config_.max_batch_size = 1 + Random(10);
    config_.min_batch_delay_us = Random(3) == 0 ? Random(2000) : 0;
    config_.max_steps_in_flight = 1 + Random(3);
    config_.mixed_prefill_tokens = 1 + Random(30);
    config_.min_chunk_tokens = 1 + Random(8);
    config_.ageing_us_per_level = 1 + Random(1000);
    config_.max_transfers_in_flight = 1 + Random(8);
    config_.max_stores_waiting = 1 + Random(20);
    config_.load_poll_us = 100;
    config_.store_poll_us = 300;
    worker_config_.max_transfers = config_.max_transfers_in_flight;
    worker_config_.load_miss = Random(2) == 0 ? Random(40) : 0;
    worker_config_.transfer_failure = Random(2) == 0 ? Random(30) : 0;
    worker_config_.transfer_end = 20 + Random(81);
    worker_config_.vocabulary = 20 + Random(60);
    if (Random(2) == 0) worker_config_.forward_us = [](uint32_t) { return 0; };  // loads always pay
    evacuate_ = Random(3) == 0;
  }

  void StartWorker() {
    ++epoch_;
    scheduler_ = std::make_unique<Scheduler>(config_, replica_, epoch_);
    worker_ = std::make_unique<FakeWorker>(worker_config_, replica_, epoch_, cache_,
                                           static_cast<uint32_t>(random_()));
  }

  SequenceRequest RandomRequest(uint64_t id) {
    SequenceRequest request = {.id = id};
    const uint32_t tenant = Random(3);
    request.tenant = std::to_string(tenant);
    request.tenant_weight = 1 + tenant;
    // Tenants 0 and 1 share a namespace, 2 has its own.
    const uint32_t tenant_namespace = tenant / 2;
    request.tenant_namespace = std::to_string(tenant_namespace);
    request.sampling.set_seed(FakeWorker::EncodeSeed(tenant_namespace, Random(4)));
    request.gate.set_threshold(Random(4) == 0 ? 0.5f : 0.3f);
    request.priority = static_cast<int32_t>(Random(7)) - 3;
    request.arrival_us = now_us_;
    request.use_cache = Random(6) != 0;
    request.stop_token_ids = {Random(worker_config_.vocabulary)};
    // Few prefixes, so that many are shared.
    const uint32_t family = Random(3);
    const uint32_t prompt = 1 + Random(max_context_ - 2);
    const uint32_t common = Random(prompt + 1);
    for (uint32_t i = 0; i < prompt; ++i) {
      request.tokens.push_back(i < common ? family * 7 + i % 5 : Random(20));
    }
    request.prompt_tokens = prompt;
    request.max_output_tokens = Random(5) == 0 ? 0 : 1 + Random(max_context_ - prompt);
    return request;
  }

  // What the cache service says it has, now and then wrongly.
  void AskCache(SequenceRequest& request) {
    if (!request.use_cache || Random(5) == 0) return;
    const BlockKey root = RootKey(replica_.identity, request.tenant_namespace, request.gate);
    for (const BlockKey& key : BlockKeys(root, request.tokens, replica_.block_tokens)) {
      uint32_t mask = 0;
      for (uint32_t g = 0; g < replica_.groups.size(); ++g) {
        const bool there = cache_.contains({key.ToString(), g}) || Random(30) == 0;
        if (there && Random(30) != 0) mask |= 1u << g;
      }
      request.cached_groups.push_back(mask);
    }
  }

  void Expect(const SequenceRequest& request) {
    Expected& expected = expected_[request.id];
    expected.urgency =
        MakeUrgency(request.priority, request.arrival_us, request.id, config_.ageing_us_per_level);
    Tag tag = RootTag(request.tenant_namespace, request.gate);
    for (uint32_t i = 0; i < request.prompt_tokens; ++i) tag = NextTag(tag, request.tokens[i]);
    uint32_t most = request.max_output_tokens;
    if (most == 0) {
      most = max_context_ - request.prompt_tokens;
      for (const KvGroupInfo& group : replica_.groups) {
        if (group.window_tokens != 0) continue;
        most = std::min(most, group.page_count * replica_.block_tokens + 1 - request.prompt_tokens);
      }
    }
    expected.output.assign(request.tokens.begin() + request.prompt_tokens, request.tokens.end());
    expected.received = expected.output;
    for (const uint32_t token : expected.output) tag = NextTag(tag, token);
    while (expected.finish == FinishReason::kNone) {
      const uint32_t token =
          ExpectedToken(tag, request.sampling.seed() & 0xffffffff, worker_config_.vocabulary);
      tag = NextTag(tag, token);
      expected.output.push_back(token);
      if (token == request.stop_token_ids[0]) {
        expected.finish = FinishReason::kStopToken;
      } else if (expected.output.size() >= most) {
        expected.finish = FinishReason::kMaxTokens;
      }
    }
  }

  void AddRandom(uint64_t id) {
    SequenceRequest request = RandomRequest(id);
    AskCache(request);
    const absl::Status status = scheduler_->Add(request);
    if (!status.ok()) {
      // A window group may be too small for this context.
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
      return;
    }
    Expect(request);
    live_[id] = request;
  }

  void ForkRandom(uint64_t id) {
    if (live_.empty()) return;
    const auto parent = std::next(live_.begin(), Random(static_cast<uint32_t>(live_.size())));
    SequenceRequest fork = {.id = id, .max_output_tokens = 0, .arrival_us = now_us_};
    const uint32_t tenant_namespace = static_cast<uint32_t>(parent->second.sampling.seed() >> 32);
    fork.sampling.set_seed(FakeWorker::EncodeSeed(tenant_namespace, 100 + Random(4)));
    const absl::Status status = scheduler_->Fork(parent->first, fork);
    const Expected& from = expected_[parent->first];
    SequenceRequest whole = parent->second;
    whole.id = id;
    whole.sampling = fork.sampling;
    whole.max_output_tokens = 0;
    whole.arrival_us = fork.arrival_us;
    whole.tokens.resize(whole.prompt_tokens);
    whole.tokens.insert(whole.tokens.end(), from.received.begin(), from.received.end());
    if (!status.ok()) return;
    Expect(whole);
    live_[id] = whole;
  }

  void CancelRandom() {
    if (live_.empty()) return;
    const auto it = std::next(live_.begin(), Random(static_cast<uint32_t>(live_.size())));
    EXPECT_TRUE(scheduler_->Cancel(it->first));
    EXPECT_FALSE(scheduler_->Cancel(it->first));
    expected_[it->first].cancelled = true;
    live_.erase(it);
  }

  void MoveToAnotherWorker() {
    std::vector<SequenceRequest> requests = scheduler_->Evacuate();
    ASSERT_EQ(requests.size(), live_.size());
    EXPECT_FALSE(scheduler_->Plan(now_us_));
    StartWorker();
    for (SequenceRequest& request : requests) {
      const Expected& expected = expected_[request.id];
      EXPECT_EQ(request.tokens.size() - request.prompt_tokens, expected.received.size());
      request.cached_groups.clear();
      AskCache(request);
      ASSERT_TRUE(scheduler_->Add(std::move(request)).ok());
    }
  }

  void Work() {
    const uint32_t plans = Random(4);
    bool planned = false;
    for (uint32_t i = 0; i < plans; ++i) {
      const std::optional<v1::StepPlan> plan = scheduler_->Plan(now_us_);
      if (!plan) break;
      planned = true;
      EXPECT_LE(scheduler_->steps_in_flight(), config_.max_steps_in_flight);
      copies_ += plan->copy_group_size();
      worker_->Accept(*plan);
    }
    if (worker_->has_steps() && Random(3) != 0) {
      RetireOne();
    } else if (!worker_->has_steps() && plans > 0 && !planned && !live_.empty()) {
      // Nothing in flight and nothing planned: there must be a time to wait for.
      const std::optional<int64_t> wakeup = scheduler_->NextWakeup(now_us_);
      ASSERT_TRUE(wakeup) << "stuck with " << scheduler_->running() << " running, "
                          << scheduler_->waiting() << " waiting";
      now_us_ = std::max(now_us_, *wakeup);
    }
  }

  void RetireOne() {
    const v1::StepResult result = worker_->Run();
    if (::testing::Test::HasFailure()) return;
    absl::StatusOr<std::vector<SequenceEvent>> events = scheduler_->Retire(result, now_us_);
    ASSERT_TRUE(events.ok()) << events.status();
    for (const SequenceEvent& event : *events) {
      Expected& expected = expected_[event.sequence];
      EXPECT_TRUE(live_.contains(event.sequence)) << "event of a sequence that is over";
      EXPECT_EQ(event.heads_skipped, event.tokens_computed * 3);
      if (event.figures) expected.preemptions = event.figures->preemptions;
      if (!event.has_token) continue;
      ASSERT_EQ(event.index, expected.received.size());
      expected.received.push_back(event.token);
      if (event.finish == FinishReason::kNone) continue;
      expected.finished_as = event.finish;
      live_.erase(event.sequence);
    }
  }

  bool IsIdle() {
    if (!live_.empty()) return false;
    while (true) {
      if (const std::optional<v1::StepPlan> plan = scheduler_->Plan(now_us_)) {
        worker_->Accept(*plan);
      } else if (worker_->has_steps()) {
        RetireOne();
        if (::testing::Test::HasFailure()) return true;
      } else if (const auto wakeup = scheduler_->NextWakeup(now_us_)) {
        now_us_ = std::max(now_us_, *wakeup);
      } else {
        return true;
      }
    }
  }

  void CheckEnd() {
    const auto most_urgent = std::min_element(
        expected_.begin(), expected_.end(),
        [](const auto& a, const auto& b) { return a.second.urgency < b.second.urgency; });
    EXPECT_TRUE(most_urgent == expected_.end() || most_urgent->second.preemptions == 0);
    for (const auto& [id, expected] : expected_) {
      if (expected.cancelled) continue;
      EXPECT_EQ(expected.received, expected.output) << "sequence " << id;
      EXPECT_EQ(expected.finished_as, expected.finish) << "sequence " << id;
    }
    EXPECT_EQ(scheduler_->running(), 0u);
    EXPECT_EQ(scheduler_->waiting(), 0u);
    EXPECT_EQ(worker_->transfers_under_way(), 0u);
    v1::WorkerStatus status;
    scheduler_->Describe(status);
    for (const v1::GroupStatus& group : status.groups()) {
      EXPECT_EQ(group.pages_used(), 0u) << "pages leaked in group " << group.name();
    }
    preemptions_ = status.preemptions();
    reused_ = status.prompt_tokens_reused();
    loaded_ = status.blocks_loaded();
    filled_ = status.blocks_filled();
    EXPECT_EQ(filled_, worker_->pages_filled());
  }

  std::mt19937 random_;
  const uint32_t seed_;
  int64_t now_us_ = 1'000'000;
  uint32_t max_context_ = 0;
  bool evacuate_ = false;
  ReplicaInfo replica_;
  Scheduler::Config config_;
  FakeWorker::Config worker_config_;
  FakeCache cache_;
  uint64_t epoch_ = 0;
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<FakeWorker> worker_;
  std::map<uint64_t, SequenceRequest> live_;
  std::map<uint64_t, Expected> expected_;
  uint64_t preemptions_ = 0;
  uint64_t reused_ = 0;
  uint64_t loaded_ = 0;
  uint64_t filled_ = 0;
  uint64_t copies_ = 0;
};

TEST(SchedulerSimulation, EverySequenceGetsExactlyItsTokens) {
  uint32_t first = 1;
  uint32_t last = 3000;
  if (const char* seed = std::getenv("TROUPE_SEED")) {
    first = last = static_cast<uint32_t>(std::strtoul(seed, nullptr, 10));
  }
  uint64_t preemptions = 0, reused = 0, loaded = 0, filled = 0, copies = 0;
  for (uint32_t seed = first; seed <= last; ++seed) {
    SCOPED_TRACE(::testing::Message() << "TROUPE_SEED=" << seed);
    Simulation simulation(seed);
    simulation.Run();
    if (HasFailure()) return;
    preemptions += simulation.preemptions();
    reused += simulation.reused();
    loaded += simulation.loaded();
    filled += simulation.filled();
    copies += simulation.copies();
  }
  if (first == last) return;
  // The workloads reach what they are meant to reach.
  EXPECT_GT(preemptions, 1000u);
  EXPECT_GT(reused, 10'000u);
  EXPECT_GT(loaded, 1000u);
  EXPECT_GT(filled, 1000u);
  EXPECT_GT(copies, 1000u);
}

}  // namespace
}  // namespace troupe
