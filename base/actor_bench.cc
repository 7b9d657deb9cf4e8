// Messages per second and latency of actors on ThreadExecutor.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/actor.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/inbox.h"
#include "base/thread_executor.h"

namespace troupe {
namespace {

constexpr size_t kCapacity = 4096;
constexpr int kChunk = 1024;  // Messages that a producer tells between two turns.

// Counts to a goal, over and over; tells `done` each time it is reached.
class Sink : public Actor<int64_t> {
 public:
  Sink(int64_t goal, ActorRef<int> done) : goal_(goal), done_(std::move(done)) {}

 private:
  void Handle(int64_t value) override {
    benchmark::DoNotOptimize(value);
    if (++count_ < goal_) return;
    count_ = 0;
    CHECK_OK(done_.Tell(0));
  }

  const int64_t goal_;
  const ActorRef<int> done_;
  int64_t count_ = 0;
};

// Told n, tells the sink n messages, in chunks between which the sink has its turn.
class Producer : public Actor<int64_t> {
 public:
  explicit Producer(ActorRef<int64_t> sink) : sink_(std::move(sink)) {}

 private:
  void Handle(int64_t count) override {
    const int64_t chunk = std::min<int64_t>(count, kChunk);
    for (int64_t i = 0; i < chunk; ++i) {
      if (!sink_.Tell(int64_t{i}).ok()) {
        CHECK_OK(self().Tell(count - i));
        return;
      }
    }
    if (count > chunk) CHECK_OK(self().Tell(count - chunk));
  }

  const ActorRef<int64_t> sink_;
};

// Arguments: producers, threads of the executor.
void BM_Throughput(benchmark::State& state) {
  constexpr int64_t kMessages = 1 << 18;
  const int64_t producer_count = state.range(0);
  ThreadExecutor executor({.thread_count = static_cast<int>(state.range(1))});
  const auto done = Inbox<int>::Create("done", 1);
  auto sink = Spawn<Sink>(executor, {.name = "sink", .mailbox_capacity = kCapacity}, kMessages,
                          done->ref());
  std::vector<ActorHandle<int64_t>> producers;
  for (int64_t i = 0; i < producer_count; ++i) {
    producers.push_back(Spawn<Producer>(executor, {.name = "producer"}, sink.ref()));
  }
  for (auto _ : state) {
    for (auto& producer : producers) CHECK_OK(producer.ref().Tell(kMessages / producer_count));
    done->Receive(absl::InfiniteDuration());
  }
  state.SetItemsProcessed(state.iterations() * kMessages);
}
BENCHMARK(BM_Throughput)
    ->ArgNames({"producers", "threads"})
    ->Args({1, 1})
    ->Args({1, 2})
    ->Args({4, 1})
    ->Args({4, 2})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

void ReportPercentiles(benchmark::State& state, std::vector<int64_t> samples_ns) {
  std::sort(samples_ns.begin(), samples_ns.end());
  const auto at = [&](double share) {
    return static_cast<double>(samples_ns[static_cast<size_t>(share * (samples_ns.size() - 1))]);
  };
  state.counters["p50_ns"] = at(0.50);
  state.counters["p99_ns"] = at(0.99);
}

struct Ball {
  ActorRef<Ball> back;
  int64_t served_ns;
};

class Echo : public Actor<Ball> {
  void Handle(Ball ball) override {
    const ActorRef<Ball> back = ball.back;
    back.TellReply(std::move(ball)).IgnoreError();
  }
};

// Serves `rounds` balls one after the other and notes how long each was away.
class Server : public Actor<Ball> {
 public:
  Server(ActorRef<Ball> echo, int rounds, std::vector<int64_t>* samples_ns, ActorRef<int> done)
      : echo_(std::move(echo)), rounds_(rounds), samples_ns_(*samples_ns), done_(std::move(done)) {}

 private:
  void OnStart() override { Serve(); }
  void Handle(Ball ball) override {
    samples_ns_.push_back(clock().MonotonicNs() - ball.served_ns);
    if (--rounds_ > 0) {
      Serve();
    } else {
      CHECK_OK(done_.Tell(0));
    }
  }
  void Serve() { CHECK_OK(echo_.Tell(Ball{self(), clock().MonotonicNs()})); }

  const ActorRef<Ball> echo_;
  int rounds_;
  std::vector<int64_t>& samples_ns_;
  const ActorRef<int> done_;
};

// A round trip between two actors. Argument: threads of the executor.
void BM_PingPong(benchmark::State& state) {
  constexpr int kRounds = 20000;
  ThreadExecutor executor({.thread_count = static_cast<int>(state.range(0))});
  auto echo = Spawn<Echo>(executor, {.name = "echo"});
  std::vector<int64_t> samples_ns;
  for (auto _ : state) {
    const auto done = Inbox<int>::Create("done", 1);
    auto server =
        Spawn<Server>(executor, {.name = "server"}, echo.ref(), kRounds, &samples_ns, done->ref());
    done->Receive(absl::InfiniteDuration());
    server.Stop(StopMode::kDrain);
    server.Join();
  }
  state.SetItemsProcessed(state.iterations() * kRounds);
  ReportPercentiles(state, std::move(samples_ns));
}
BENCHMARK(BM_PingPong)
    ->ArgName("threads")
    ->Arg(1)
    ->Arg(2)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

// From Tell on a thread outside to the handler of an actor whose executor sleeps.
class Arrival : public Actor<int64_t> {
 public:
  explicit Arrival(std::atomic<int64_t>* latency_ns) : latency_ns_(*latency_ns) {}

 private:
  void Handle(int64_t told_ns) override {
    latency_ns_.store(clock().MonotonicNs() - told_ns, std::memory_order_release);
  }
  std::atomic<int64_t>& latency_ns_;
};

void BM_WakeLatency(benchmark::State& state) {
  constexpr std::chrono::microseconds kPause(200);  // Long enough for the threads to sleep again.
  ThreadExecutor executor({.thread_count = 1});
  std::atomic<int64_t> latency_ns = 0;
  auto arrival = Spawn<Arrival>(executor, {.name = "arrival"}, &latency_ns);
  std::vector<int64_t> samples_ns;
  for (auto _ : state) {
    std::this_thread::sleep_for(kPause);
    latency_ns.store(-1, std::memory_order_relaxed);
    CHECK_OK(arrival.ref().Tell(RealClock::Get().MonotonicNs()));
    int64_t seen_ns = -1;
    while (seen_ns < 0) {
      std::this_thread::yield();
      seen_ns = latency_ns.load(std::memory_order_acquire);
    }
    samples_ns.push_back(seen_ns);
    state.SetIterationTime(static_cast<double>(seen_ns) * 1e-9);
  }
  ReportPercentiles(state, std::move(samples_ns));
}
BENCHMARK(BM_WakeLatency)->UseManualTime()->Iterations(2000)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace troupe
