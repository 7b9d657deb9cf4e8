// The coordinator's actors in simulation: random requests, cancellations, slow readers, replicas of
// one rank and of several, and machines that die, hang and come back. Every seed is one run; a
// failure prints its seed, and TROUPE_SEED=<seed> replays that one alone.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/log.h"
#include "coordinator/testing/sim_cluster.h"

namespace troupe {
namespace {

using testing::FakeWorker;
using testing::SimCluster;
using testing::SimMachine;
using testing::SimStream;
using testing::SmallWorkerInfo;

constexpr uint64_t kSeeds = 300;

struct Sizes {
  uint32_t tp;
  uint32_t dp;
  uint32_t pp;

  uint32_t ranks() const { return tp * dp * pp; }
};
constexpr Sizes kLayouts[] = {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {2, 1, 1}, {1, 2, 1},
                              {1, 3, 1}, {2, 2, 1}, {1, 2, 2}, {2, 1, 2}};

std::shared_ptr<const Tokenizer> AbacusTokenizer() {
  static const auto tokenizer = Tokenizer::Load(
      absl::StrCat(std::getenv("TROUPE_SOURCE_DIR"), "/models/abacus/tokenizer.json"));
  return tokenizer.value();
}

// One random run.
class Simulation {
 public:
  explicit Simulation(uint64_t seed)
      : random_(seed), config_(RandomConfig(seed)), cluster_(config_, AbacusTokenizer()) {
    const v1::WorkerInfo shape = RandomInfo();
    for (uint64_t i = 0; i < machines_; ++i) {
      v1::WorkerInfo info = shape;
      info.set_worker(absl::StrCat("worker", i));
      cluster_.AddMachine(std::move(info));
    }
  }

  void Run() {
    for (uint64_t i = 0; i < machines_; ++i) At(Random(50'000), [this, i] { SwitchOn(i); });
    const uint64_t requests = 2 + Random(20);
    for (uint64_t i = 0; i < requests; ++i) {
      At(Random(400'000), [this] { Submit(); });
    }
    for (uint64_t i = 0; i < trouble_; ++i) {
      At(Random(600'000), [this] { Trouble(); });
    }
    cluster_.sim().RunFor(absl::Milliseconds(700));
    for (uint64_t i = 0; i < machines_; ++i) {
      if (cluster_.machine(i).frozen()) cluster_.machine(i).Kill();
      SwitchOn(i);
    }
    // Far more than any run needs: what takes longer is stuck.
    const int64_t limit_us = cluster_.NowUs() + 60'000'000;
    ASSERT_TRUE(cluster_.sim().RunUntil(
        [&] { return cluster_.AllClosed() || cluster_.NowUs() > limit_us; }));
    ASSERT_EQ(cluster_.streams().size(), requests);
    for (const auto& stream : cluster_.streams()) CheckStream(*stream);
    cluster_.sim().RunFor(absl::Milliseconds(500));
    CheckRest();
  }

  uint64_t trace_hash() { return cluster_.sim().trace_hash(); }
  uint64_t moves() const { return moves_; }
  uint64_t reused() const { return reused_; }

 private:
  uint64_t Random(uint64_t below) { return random_.Below(below); }
  bool OneIn(uint64_t n) { return Random(n) == 0; }

  template <class Then>
  void At(uint64_t delay_us, Then then) {
    cluster_.sim().PostAfter(absl::Microseconds(delay_us), std::move(then));
  }

  SimCluster::Config RandomConfig(uint64_t seed) {
    SimCluster::Config config = {.seed = seed};
    layout_ = kLayouts[Random(std::size(kLayouts))];
    const uint32_t ranks = layout_.ranks();
    machines_ = ranks == 1 ? 1 + Random(3) : ranks * (1 + Random(2)) + Random(2);
    config.machine.takes_assignment = ranks > 1 || OneIn(3);
    config.fleet.ranks = ranks;
    config.fleet.make_map = [this](const auto& members) { return Map(members); };
    config.fleet.form_retry_ms = 5;
    config.fleet.rank_timeout_ms = 60;
    config.fleet.rank_lost_ms = 120;
    config.fleet.gathering = {.silent_us = 50'000, .meeting_us = 50'000};
    trouble_ = OneIn(3) ? 0 : Random(12);
    config.fleet.scheduler.max_batch_size = 1 + Random(8);
    config.fleet.scheduler.max_steps_in_flight = 1 + Random(3);
    config.fleet.scheduler.min_batch_delay_us = OneIn(3) ? Random(3000) : 0;
    config.fleet.scheduler.mixed_prefill_tokens = 8 + Random(64);
    config.fleet.scheduler.min_chunk_tokens = 1 + Random(8);
    config.fleet.affinity_blocks = Random(20);
    config.machine.max_delay_us = Random(3000);
    // All are ids of the tokenizer; the end token is one of them.
    config.machine.worker.vocabulary = 100 + Random(300);
    config.machine.worker.load_miss = OneIn(2) ? Random(40) : 0;
    config.machine.worker.transfer_failure = OneIn(2) ? Random(30) : 0;
    config.machine.worker.transfer_end = 20 + Random(81);
    if (OneIn(2)) config.machine.worker.forward_us = [](uint32_t) { return 10'000; };
    config.lookup_cache = !OneIn(3);
    return config;
  }

  absl::StatusOr<v1::ShardMap> Map(const std::vector<v1::RegisterWorkerRequest>& members) const {
    EXPECT_EQ(members.size(), layout_.ranks());
    v1::ShardMap map;
    map.mutable_layout()->set_tp(layout_.tp);
    map.mutable_layout()->set_dp(layout_.dp);
    map.mutable_layout()->set_pp(layout_.pp);
    return map;
  }

  v1::WorkerInfo RandomInfo() {
    v1::WorkerInfo info = SmallWorkerInfo("");
    info.set_max_context(60 + Random(100));
    info.set_max_rows(1 + Random(8));
    info.set_max_step_tokens(16 + Random(100));
    if (!OneIn(3)) info.set_cache_address("cache");
    const uint32_t blocks = (info.max_context() + 15) / 16;
    for (v1::KvGroup& group : *info.mutable_groups()) group.set_page_count(1 + blocks + Random(40));
    return info;
  }

  JobActor::Request RandomRequest() {
    // Few prefixes, so that many are shared.
    const uint64_t family = Random(3);
    const uint32_t most = cluster_.machine(0).info().max_context() - 2;
    std::vector<uint32_t> prompt(1 + Random(most));
    const uint64_t common = Random(prompt.size() + 1);
    for (size_t i = 0; i < prompt.size(); ++i) {
      prompt[i] = 10 + static_cast<uint32_t>(i < common ? family * 7 + i % 5 : Random(300));
    }
    const auto room = static_cast<uint32_t>(most + 2 - prompt.size());
    JobActor::Request request = SimCluster::Request(
        prompt, OneIn(8) ? 0 : 1 + static_cast<uint32_t>(Random(std::min(room, 40u))));
    const auto tenant = static_cast<uint32_t>(Random(2));
    request.tenant = absl::StrCat("tenant", tenant);
    request.tenant_namespace = absl::StrCat(tenant);
    v1::GenerateOptions& options = *request.body.mutable_options();
    options.mutable_sampling()->set_seed(
        FakeWorker::EncodeSeed(tenant, static_cast<uint32_t>(Random(4))));
    options.set_priority(static_cast<int32_t>(Random(7)) - 3);
    options.set_ignore_eos(OneIn(2));
    options.set_use_cache(!OneIn(6));
    options.set_trace(OneIn(4));
    if (OneIn(4)) options.mutable_attention_gate()->set_mode(v1::AttentionGate::MODE_OFF);
    if (OneIn(5)) options.add_stop_token_ids(static_cast<uint32_t>(10 + Random(50)));
    if (OneIn(6)) options.add_stop(absl::StrCat(Random(10)));
    if (OneIn(6)) options.set_max_steps(1);
    return request;
  }

  void Submit() {
    SimStream& stream = cluster_.Submit(RandomRequest());
    if (OneIn(10)) stream.give_up_after = Random(10);
    if (!OneIn(5)) return;
    At(Random(100'000), [this, &stream] {
      if (!stream.closed.has_value()) cluster_.Cancel(stream);
    });
  }

  void SwitchOn(uint64_t index) {
    if (!cluster_.machine(index).on()) cluster_.machine(index).Start(cluster_.fleet());
  }

  void Trouble() {
    const uint64_t index = Random(machines_);
    SimMachine& machine = cluster_.machine(index);
    if (!machine.on()) return;
    if (machine.frozen()) return;
    if (OneIn(5)) {
      machine.Freeze();
    } else if (OneIn(3)) {
      machine.RestartSilently(cluster_.fleet());
    } else {
      machine.Kill();
      At(Random(100'000), [this, index] { SwitchOn(index); });
    }
  }

  void CheckStream(const SimStream& stream) {
    SCOPED_TRACE(absl::StrCat("request ", stream.request.request_id));
    ASSERT_TRUE(stream.closed.has_value()) << "stuck after " << stream.tokens.size() << " tokens";
    const SimCluster::Expected expected =
        cluster_.Expect(stream.request, cluster_.machine(0).info());
    ASSERT_LE(stream.tokens.size(), expected.tokens.size());
    for (size_t i = 0; i < stream.tokens.size(); ++i) {
      ASSERT_EQ(stream.tokens[i], expected.tokens[i]) << "token " << i;
    }
    moves_ += stream.epoch > 1 ? stream.epoch - 1 : 0;
    if (stream.closed->ok()) {
      CheckFinished(stream, expected);
    } else if (absl::IsCancelled(*stream.closed)) {
      EXPECT_TRUE(stream.cancelled);
    } else {
      EXPECT_TRUE(absl::IsResourceExhausted(*stream.closed)) << *stream.closed;
      EXPECT_TRUE(stream.give_up_after.has_value()) << *stream.closed;
    }
  }

  void CheckFinished(const SimStream& stream, const SimCluster::Expected& expected) {
    const v1::Finished& finished = *stream.finished;
    const v1::GenerateOptions& options = stream.request.body.options();
    EXPECT_EQ(finished.usage().output_tokens(), stream.tokens.size());
    EXPECT_EQ(finished.usage().prompt_tokens(), stream.request.body.token_ids().ids_size());
    EXPECT_LE(finished.usage().cached_tokens(), finished.usage().prompt_tokens());
    EXPECT_LE(finished.usage().queue_us(), finished.usage().ttft_us());
    EXPECT_LE(finished.usage().ttft_us(), finished.usage().total_us());
    EXPECT_EQ(finished.has_trace(), options.trace());
    reused_ += finished.usage().cached_tokens();
    if (!finished.stop_string().empty()) {
      EXPECT_EQ(finished.reason(), v1::Finished::REASON_STOP);
      EXPECT_EQ(finished.stop_string(), options.stop(0));
      EXPECT_FALSE(absl::StrContains(stream.text, options.stop(0))) << stream.text;
      return;
    }
    EXPECT_EQ(stream.text, AbacusTokenizer()->Decode(stream.tokens, /*skip_special=*/true).value());
    if (finished.reason() == v1::Finished::REASON_MAX_STEPS) {
      EXPECT_EQ(stream.steps, options.max_steps());
      return;
    }
    EXPECT_EQ(stream.tokens.size(), expected.tokens.size());
    EXPECT_EQ(finished.reason(),
              expected.stopped ? v1::Finished::REASON_STOP : v1::Finished::REASON_MAX_TOKENS);
  }

  // Nobody holds anything once all have ended.
  void CheckRest() {
    const v1::ClusterStatus status = cluster_.Describe();
    EXPECT_TRUE(status.ready());
    uint64_t waiting = 0;
    uint64_t ready = 0;
    for (const v1::WorkerStatus& worker : status.workers()) {
      if (worker.state() == v1::WorkerStatus::STATE_WAITING) {
        EXPECT_FALSE(worker.problem().empty());
        ++waiting;
        continue;
      }
      ++ready;
      EXPECT_EQ(worker.state(), v1::WorkerStatus::STATE_READY) << worker.worker();
      const bool assigned = config_.machine.takes_assignment;
      EXPECT_EQ(worker.ranks_size(), assigned ? static_cast<int>(layout_.ranks()) : 0);
      EXPECT_EQ(worker.running() + worker.waiting(), 0u) << worker.worker();
      for (const v1::GroupStatus& group : worker.groups()) {
        EXPECT_EQ(group.pages_used(), 0u) << worker.worker() << ", group " << group.name();
      }
    }
    EXPECT_EQ(ready, machines_ / layout_.ranks());
    EXPECT_EQ(waiting, machines_ % layout_.ranks());
    const JobContext& context = cluster_.context();
    EXPECT_EQ(context.finished + context.failed + context.cancelled, cluster_.streams().size());
  }

  SeededRandom random_;
  Sizes layout_ = {1, 1, 1};
  uint64_t machines_ = 0;
  uint64_t trouble_ = 0;
  const SimCluster::Config config_;
  SimCluster cluster_;
  uint64_t moves_ = 0;
  uint64_t reused_ = 0;
};

TEST(CoordinatorSim, EveryStreamIsTheSequentialOne) {
  const char* only = std::getenv("TROUPE_SEED");
  if (only == nullptr) SetLogLevel(LogLevel::kOff);
  const uint64_t first = only == nullptr ? 1 : std::stoull(only);
  const uint64_t last = only == nullptr ? kSeeds : first;
  uint64_t moves = 0;
  uint64_t reused = 0;
  for (uint64_t seed = first; seed <= last; ++seed) {
    SCOPED_TRACE(absl::StrCat("TROUPE_SEED=", seed));
    Simulation simulation(seed);
    simulation.Run();
    if (HasFailure()) return;
    moves += simulation.moves();
    reused += simulation.reused();
  }
  if (only != nullptr) return;
  // What is meant to be tested did happen.
  EXPECT_GT(moves, kSeeds / 10);
  EXPECT_GT(reused, kSeeds);
}

TEST(CoordinatorSim, ASeedReplaysItsRun) {
  SetLogLevel(LogLevel::kOff);
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    Simulation first(seed);
    first.Run();
    Simulation second(seed);
    second.Run();
    EXPECT_EQ(first.trace_hash(), second.trace_hash()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace troupe
