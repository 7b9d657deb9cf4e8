// Scheduler CPU time per step and sequence as live requests grow: one home, and a replica of 1,024
// ranks (tp2, 512 homes) whose plans are joined and whose every rank answers, as SchedulerActor
// does it. Steady decode, one step at a time, messages included; what should stay flat is
// ns_per_sequence.

#include <benchmark/benchmark.h>
#include <time.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "coordinator/joint_steps.h"
#include "coordinator/scheduler/scheduler.h"

namespace troupe {
namespace {

constexpr uint32_t kPromptTokens = 16;
constexpr uint32_t kOutputTokens = 192;
constexpr uint64_t kEpoch = 1;

ReplicaInfo HomeInfo(uint32_t live) {
  const uint32_t blocks = (kPromptTokens + kOutputTokens) / 64 + 2;
  return {.worker = "bench",
          .identity = std::string(32, 'i'),
          .block_tokens = 64,
          .max_rows = live,
          .max_step_tokens = live * kPromptTokens,
          .max_context = 4096,
          .groups = {{.name = "full", .page_count = live * blocks}}};
}

double CpuSeconds() {
  timespec now = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

v1::StepResult ResultOf(const v1::StepPlan& plan, bool samples) {
  v1::StepResult result;
  result.set_epoch(plan.epoch());
  result.set_step(plan.step());
  for (int i = 0; i < plan.row_slot_size(); ++i) {
    result.add_row_heads_skipped(0);
    if (!samples) continue;
    result.add_sampled_slot(plan.row_slot(i));
    result.add_sampled_token(5);
  }
  return result;
}

// Homes of one replica, each with its share of the live requests.
class Replica {
 public:
  Replica(uint32_t tp, uint32_t homes, uint32_t live) : joint_(MakeLayout(tp, homes), kEpoch) {
    uint64_t id = 0;
    for (uint32_t h = 0; h < homes; ++h) {
      const uint32_t share = live / homes + (h < live % homes ? 1 : 0);
      const uint32_t rows = share == 0 ? 1 : share;
      homes_.push_back(std::make_unique<Scheduler>(
          Scheduler::Config{.max_batch_size = rows, .max_waiting = rows + 1}, HomeInfo(rows),
          kEpoch));
      for (uint32_t i = 0; i < share; ++i) {
        SequenceRequest request = {.id = ++id,
                                   .prompt_tokens = kPromptTokens,
                                   .max_output_tokens = kOutputTokens,
                                   .stop_token_ids = {1, 2}};
        request.tokens.assign(kPromptTokens, static_cast<uint32_t>(id % 1000) + 3);
        request.tenant = "tenant";
        CHECK_OK(homes_.back()->Add(std::move(request)));
      }
    }
  }

  // One step of all ranks. CPU seconds of the coordinator: what ranks do is not in it.
  double Step(uint64_t* rows) {
    double spent = -CpuSeconds();
    JointSteps::Plans plans;
    for (const auto& home : homes_) plans.push_back(home->Plan(0));
    const std::vector<v1::StepPlan> joined = joint_.Join(std::move(plans), 0);
    spent += CpuSeconds();
    std::vector<v1::StepResult> results;
    *rows = 0;
    for (const v1::StepPlan& plan : joined) *rows += static_cast<uint64_t>(plan.row_slot_size());
    for (int rank = 0; rank < joint_.ranks(); ++rank) {
      // The first of a home's ranks samples.
      const int home = joint_.HomeOf(rank);
      results.push_back(ResultOf(joined[home], rank % (joint_.ranks() / joint_.homes()) == 0));
    }
    spent -= CpuSeconds();
    for (int rank = 0; rank < joint_.ranks(); ++rank) {
      auto ended = joint_.Add(rank, std::move(results[rank]));
      CHECK_OK(ended.status());
      if (!ended->has_value()) continue;
      for (size_t home = 0; home < homes_.size(); ++home) {
        if (!(**ended)[home].has_value()) continue;
        const auto events = homes_[home]->Retire(*(**ended)[home], 0);
        CHECK_OK(events.status());
        benchmark::DoNotOptimize(events->size());
      }
    }
    return spent + CpuSeconds();
  }

 private:
  static v1::Layout MakeLayout(uint32_t tp, uint32_t dp) {
    v1::Layout layout;
    layout.set_tp(tp);
    layout.set_dp(dp);
    layout.set_pp(1);
    return layout;
  }

  JointSteps joint_;
  std::vector<std::unique_ptr<Scheduler>> homes_;
};

void Measure(benchmark::State& state, uint32_t tp, uint32_t homes) {
  const auto live = static_cast<uint32_t>(state.range(0));
  Replica replica(tp, homes, live);
  uint64_t rows = 0;
  while (rows != live) replica.Step(&rows);  // prompts
  for (int i = 0; i < 3; ++i) replica.Step(&rows);
  double seconds = 0;
  for (auto _ : state) {
    const double step = replica.Step(&rows);
    CHECK_EQ(rows, live);
    state.SetIterationTime(step);
    seconds += step;
  }
  state.counters["ns_per_sequence"] =
      seconds * 1e9 / static_cast<double>(state.iterations()) / live;
}

void OneHome(benchmark::State& state) { Measure(state, 1, 1); }
void ThousandRanks(benchmark::State& state) { Measure(state, 2, 512); }

// Prompts and the steps before measuring leave room for this many.
constexpr int kSteps = 50;
BENCHMARK(OneHome)
    ->Arg(100)
    ->Arg(1000)
    ->Arg(10'000)
    ->Arg(100'000)
    ->Iterations(kSteps)
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK(ThousandRanks)
    ->Arg(100)
    ->Arg(1000)
    ->Arg(10'000)
    ->Arg(100'000)
    ->Iterations(kSteps)
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace troupe
