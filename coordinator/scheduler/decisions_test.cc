// The pure decisions: victims, priorities, fair shares, loads, prefix boundaries, limits.

#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "coordinator/scheduler/fair_share.h"
#include "coordinator/scheduler/live_sequence.h"
#include "coordinator/scheduler/load_decision.h"
#include "coordinator/scheduler/prefix_boundary.h"
#include "coordinator/scheduler/priority.h"
#include "coordinator/scheduler/token_limit.h"
#include "coordinator/scheduler/victim.h"

namespace troupe {
namespace {

constexpr int64_t kSecond = 1'000'000;

TEST(Priority, AgeingIsWorthLevels) {
  EXPECT_DOUBLE_EQ(EffectivePriority(3, 10 * kSecond, 14 * kSecond, 2 * kSecond), 5.0);
  // Priority 5 overtakes what came less than 5 levels of ageing before it, and no more.
  EXPECT_LT(MakeUrgency(5, 4 * kSecond, 2, kSecond), MakeUrgency(0, 0, 1, kSecond));
  EXPECT_LT(MakeUrgency(0, 0, 1, kSecond), MakeUrgency(5, 6 * kSecond, 2, kSecond));
}

TEST(Priority, OrderIsThatOfEffectivePriorityAtAnyTime) {
  std::mt19937 random(2);
  for (int round = 0; round < 1000; ++round) {
    const int32_t priority[2] = {static_cast<int32_t>(random() % 201) - 100,
                                 static_cast<int32_t>(random() % 201) - 100};
    const int64_t arrival[2] = {static_cast<int64_t>(random() % 1000) * 1000,
                                static_cast<int64_t>(random() % 1000) * 1000};
    const bool first = MakeUrgency(priority[0], arrival[0], 1, 5000) <
                       MakeUrgency(priority[1], arrival[1], 2, 5000);
    for (const int64_t now : {kSecond, 10 * kSecond}) {
      const double a = EffectivePriority(priority[0], arrival[0], now, 5000);
      const double b = EffectivePriority(priority[1], arrival[1], now, 5000);
      EXPECT_TRUE(std::abs(a - b) < 1e-6 || first == (a > b));
    }
  }
}

TEST(Victim, OnlyLessUrgentOnesInOrder) {
  const Urgency needy = MakeUrgency(0, 100, 5, kSecond);
  std::vector<VictimCandidate> all = {
      {MakeUrgency(0, 50, 1, kSecond), 9},   // earlier
      {MakeUrgency(0, 200, 2, kSecond), 1},  // later
      {MakeUrgency(-1, 90, 3, kSecond), 1},  // lower priority
      {MakeUrgency(0, 300, 4, kSecond), 0},  // frees nothing
  };
  EXPECT_EQ(ChooseVictim(needy, all), 2u);
  all[2].pages_freed = 0;
  EXPECT_EQ(ChooseVictim(needy, all), 1u);
  all[1].pages_freed = 0;
  EXPECT_EQ(ChooseVictim(needy, all), 2u) << "none frees a page: the least urgent after all";
  all.resize(1);
  EXPECT_EQ(ChooseVictim(needy, all), std::nullopt);
}

TEST(Victim, MostPagesBreakTies) {
  const Urgency needy = MakeUrgency(0, 0, 1, kSecond);
  EXPECT_EQ(ChooseVictim(
                needy, {{MakeUrgency(0, 50, 9, kSecond), 2}, {MakeUrgency(0, 50, 8, kSecond), 7}}),
            1u);
}

TEST(FairShare, ChargesByWeight) {
  EXPECT_DOUBLE_EQ(ChargeFor(100, 1, 1), 100);
  EXPECT_DOUBLE_EQ(ChargeFor(10, 2, 4), 5);
  EXPECT_DOUBLE_EQ(LiftedCounter(3, {}), 3);
  EXPECT_DOUBLE_EQ(LiftedCounter(3, {10, 7}), 7);
  EXPECT_DOUBLE_EQ(LiftedCounter(12, {10, 7}), 12);
}

TEST(FairShare, ServesBackloggedTenantsByWeight) {
  FairShare queue;
  std::vector<LiveSequence> sequences(400);
  for (size_t i = 0; i < sequences.size(); ++i) {
    LiveSequence& s = sequences[i];
    s.request.tenant = i % 2 == 0 ? "heavy" : "light";
    s.tenant = &queue.Activate(s.request.tenant, i % 2 == 0 ? 3 : 1);
    s.urgency = {.due_us = static_cast<int64_t>(i), .arrival_us = 0, .id = i};
    queue.Push(*s.tenant, s.urgency, &s);
  }
  int heavy = 0;
  for (int turn = 0; turn < 200; ++turn) {
    LiveSequence* next = queue.Next();
    heavy += next->request.tenant == "heavy" ? 1 : 0;
    next->tenant->counter += ChargeFor(10, 1, next->tenant->weight);
    queue.Remove(*next->tenant, next->urgency);
  }
  EXPECT_NEAR(heavy, 150, 2);
}

TEST(FairShare, IdlenessSavesNothingAndNextIsTheMostUrgent) {
  FairShare queue;
  LiveSequence busy, urgent, late;
  Tenant& a = queue.Activate("a", 1);
  queue.Push(a, {.due_us = 5, .id = 1}, &busy);
  a.counter = 1000;
  Tenant& b = queue.Activate("b", 1);
  EXPECT_DOUBLE_EQ(b.counter, 1000);
  queue.Push(b, {.due_us = 9, .id = 2}, &late);
  queue.Push(b, {.due_us = 1, .id = 3}, &urgent);
  EXPECT_EQ(queue.Next(), &urgent) << "equal counters: the more urgent head";
  b.counter = 1001;
  EXPECT_EQ(queue.Next(), &busy);
}

TEST(LoadDecision, FollowsTheMeasuredRates) {
  RateMeter meter;
  EXPECT_TRUE(ShouldLoad(meter.rates(), 64, 1 << 20)) << "nothing measured yet: try";
  meter.ObserveStep(1000, 0, 100'000);  // 0.01 tokens/us
  EXPECT_DOUBLE_EQ(PredictComputeUs(meter.rates(), 64), 6400);
  meter.ObserveLoad(100'000, 2'000, 4);  // 200 bytes/us with four under way
  EXPECT_DOUBLE_EQ(PredictLoadUs(meter.rates(), 400'000), 2'000 + 2'000);
  EXPECT_TRUE(ShouldLoad(meter.rates(), 64, 400'000));
  EXPECT_FALSE(ShouldLoad(meter.rates(), 64, 4'000'000));
}

TEST(LoadDecision, ABlockIsKeptIfComputingItTakesLonger) {
  RateMeter prefill;
  RateMeter host(kHostRates);
  constexpr uint64_t kBlockBytes = 6 << 20;
  EXPECT_TRUE(ShouldKeep(host.rates(), prefill.rates(), 64, kBlockBytes)) << "nothing measured";
  prefill.ObserveStep(8192, 0, 130'000);  // 64 tokens in 1 ms
  EXPECT_TRUE(ShouldKeep(host.rates(), prefill.rates(), 64, kBlockBytes));
  // Ten at once in 20 ms: 3.1 MB/ms, though one alone waits 20 ms.
  host.ObserveLoad(kBlockBytes, 20'000, 10);
  EXPECT_FALSE(ShouldKeep(host.rates(), prefill.rates(), 64, kBlockBytes));
  EXPECT_TRUE(ShouldKeep(host.rates(), prefill.rates(), 64, kBlockBytes / 4));
  EXPECT_DOUBLE_EQ(PredictLoadUs(host.rates(), 0), 0);
}

TEST(LoadDecision, ASlowSpellIsForgotten) {
  RateMeter meter;
  meter.ObserveStep(1000, 0, 100'000);
  meter.ObserveLoad(100'000, 5'000'000, 1);
  EXPECT_FALSE(ShouldLoad(meter.rates(), 640, 100'000));
  int declined = 0;
  while (!ShouldLoad(meter.rates(), 640, 100'000)) {
    meter.ObserveDecline();
    ASSERT_LT(++declined, 1000);
  }
  EXPECT_GT(declined, 50);
}

TEST(LoadDecision, DecodeStepsDoNotCountAsPrefill) {
  RateMeter meter;
  meter.ObserveStep(1, 16, 1000);
  meter.ObserveStep(20, 16, 1000);
  meter.ObserveStep(200, 0, 0);
  EXPECT_EQ(meter.rates().prefill_tokens_per_us, 0);
}

ReplicaInfo Replica(uint32_t window, uint32_t full_pages, uint32_t window_pages) {
  return {.worker = "w",
          .identity = std::string(32, 'i'),
          .block_tokens = 64,
          .max_rows = 8,
          .max_step_tokens = 512,
          .max_context = 1000,
          .groups = {{.name = "full", .page_count = full_pages},
                     {.name = "window", .window_tokens = window, .page_count = window_pages}}};
}

// The definition, token by token.
uint32_t SlowBoundary(const ReplicaInfo& replica, const std::vector<uint32_t>& held) {
  uint32_t best = 0;
  for (uint32_t n = 1; n <= held.size(); ++n) {
    bool usable = true;
    for (uint32_t g = 0; g < replica.groups.size(); ++g) {
      const uint32_t window = replica.groups[g].window_tokens;
      for (uint32_t t = 0; t < n * 64; ++t) {
        const bool seen = window == 0 || t + window > n * 64;
        if (seen && (held[t / 64] >> g & 1) == 0) usable = false;
      }
    }
    if (usable) best = n;
  }
  return best;
}

TEST(PrefixBoundary, IsWhatTheDefinitionSays) {
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    const uint32_t windows[] = {1, 2, 32, 64, 65, 66, 128, 129, 256};
    const ReplicaInfo replica = Replica(windows[random() % 9], 100, 100);
    std::vector<uint32_t> held(random() % 12);
    for (uint32_t& mask : held) mask = random() % 8 == 0 ? random() % 4 : random() % 3 == 0 ? 1 : 3;
    const auto mask = [&](uint32_t block) { return held[block]; };
    EXPECT_EQ(LongestBoundary(replica, held.size(), mask), SlowBoundary(replica, held));
  }
}

TEST(PrefixBoundary, PagesNeededCoverAWindowAndItsNextToken) {
  for (const uint32_t window : {1u, 2u, 64u, 65u, 66u, 256u}) {
    const ReplicaInfo replica = Replica(window, 100, 100);
    uint32_t most = 0;
    for (uint32_t position = 0; position < 900; ++position) {
      std::set<uint32_t> blocks;
      for (uint32_t t = position + 1 > window ? position + 1 - window : 0; t <= position; ++t) {
        blocks.insert(t / 64);
      }
      EXPECT_EQ(*blocks.begin(), replica.groups[1].FirstBlock(position, 64));
      most = std::max(most, static_cast<uint32_t>(blocks.size()));
    }
    EXPECT_EQ(replica.PagesNeeded(1, 900), most) << "window " << window;
  }
}

SequenceRequest Request(uint32_t prompt, uint32_t output) {
  return {.id = 1,
          .tokens = std::vector<uint32_t>(prompt),
          .prompt_tokens = prompt,
          .max_output_tokens = output};
}

TEST(TokenLimit, ContextAndPagesBound) {
  EXPECT_EQ(*TokenLimit(Request(10, 5), Replica(256, 100, 100)), 15u);
  EXPECT_EQ(*TokenLimit(Request(10, 0), Replica(256, 100, 100)), 1000u);
  EXPECT_EQ(*TokenLimit(Request(10, 0), Replica(256, 3, 100)), 193u);
  EXPECT_EQ(*TokenLimit(Request(10, 0), Replica(256, 100, 5)), 1000u);
  EXPECT_EQ(*TokenLimit(Request(10, 0), Replica(256, 100, 4)), 257u);
}

TEST(TokenLimit, RefusalsCarryTheArithmetic) {
  const absl::Status status = TokenLimit(Request(990, 20), Replica(256, 100, 100)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("990 prompt tokens + 20 tokens to generate = 1010"),
            std::string::npos)
      << status;
  EXPECT_NE(TokenLimit(Request(300, 1), Replica(256, 3, 100))
                .status()
                .message()
                .find("3 pages of 64 tokens in KV group 'full'"),
            std::string::npos);
  EXPECT_FALSE(TokenLimit(Request(0, 1), Replica(256, 100, 100)).ok());
  SequenceRequest request = Request(5, 5);
  request.priority = 101;
  EXPECT_FALSE(TokenLimit(request, Replica(256, 100, 100)).ok());
  request.priority = 0;
  request.tenant_weight = 0;
  EXPECT_FALSE(TokenLimit(request, Replica(256, 100, 100)).ok());
  request.tenant_weight = 1;
  request.tokens.resize(10);
  EXPECT_FALSE(TokenLimit(request, Replica(256, 100, 100)).ok()) << "nothing left to generate";
  request.tenant_namespace = std::string(65, 'n');
  request.tokens.resize(5);
  EXPECT_FALSE(TokenLimit(request, Replica(256, 100, 100)).ok());
  request.tenant_namespace.clear();
  request.prompt_tokens = 11;
  EXPECT_FALSE(TokenLimit(request, Replica(256, 100, 100)).ok());
}

v1::WorkerInfo Info() {
  v1::WorkerInfo info;
  info.set_worker("w");
  info.set_identity(std::string(32, 'i'));
  info.set_block_tokens(64);
  info.set_max_rows(4);
  info.set_max_step_tokens(256);
  info.set_max_context(4096);
  v1::KvGroup& group = *info.add_groups();
  group.set_name("window");
  group.set_kind(v1::KvGroup::KIND_WINDOW);
  group.set_window_tokens(256);
  group.set_page_count(10);
  return info;
}

TEST(ReplicaInfo, ChecksWhatTheWorkerSays) {
  ASSERT_TRUE(ReplicaInfo::From(Info()).ok());
  EXPECT_FALSE(ReplicaInfo::From(Info())->has_cache);
  const auto refused = [](auto change) {
    v1::WorkerInfo info = Info();
    change(info);
    return ReplicaInfo::From(info).status().code() == absl::StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(refused([](auto& info) { info.set_identity("short"); }));
  EXPECT_TRUE(refused([](auto& info) { info.set_block_tokens(0); }));
  EXPECT_TRUE(refused([](auto& info) { info.set_max_rows(0); }));
  EXPECT_TRUE(refused([](auto& info) { info.set_max_step_tokens(0); }));
  EXPECT_TRUE(refused([](auto& info) { info.set_max_context(1); }));
  EXPECT_TRUE(refused([](auto& info) { info.clear_groups(); }));
  EXPECT_TRUE(refused([](auto& info) {
    for (int i = 0; i < 8; ++i) *info.add_groups() = info.groups(0);
  }));
  EXPECT_TRUE(refused([](auto& info) { info.mutable_groups(0)->set_page_count(0); }));
  EXPECT_TRUE(refused([](auto& info) { info.mutable_groups(0)->set_window_tokens(0); }));
  EXPECT_TRUE(
      refused([](auto& info) { info.mutable_groups(0)->set_kind(v1::KvGroup::KIND_UNSPECIFIED); }));
}

}  // namespace
}  // namespace troupe
