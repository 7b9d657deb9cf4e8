// Scheduler CPU time of one step, Plan and Retire with their protobuf messages, in steady decode:
// all sequences run, each gets a token a step, one step ahead. Blocks are granted, published and
// given back as in service; contexts are around 2,000 tokens and do not matter.

#include <benchmark/benchmark.h>
#include <time.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <string>
#include <utility>

#include "base/check.h"
#include "coordinator/scheduler/scheduler.h"

namespace troupe {
namespace {

constexpr uint32_t kPromptTokens = 1024;
constexpr uint32_t kOutputTokens = 2048;

// The bundled model's groups: all tokens, two windows, compressed entries.
ReplicaInfo Replica(uint32_t live) {
  const uint32_t blocks = (kPromptTokens + kOutputTokens) / 64 + 2;
  return {.worker = "bench",
          .identity = std::string(32, 'i'),
          .block_tokens = 64,
          .max_rows = live,
          .max_step_tokens = 8192,
          .max_context = 65'536,
          .groups = {{.name = "full", .page_count = live * blocks},
                     {.name = "window", .window_tokens = 256, .page_count = live * 24},
                     {.name = "tail", .window_tokens = 32, .page_count = live * 24},
                     {.name = "compressed", .page_count = live * blocks}}};
}

SequenceRequest Request(uint64_t id) {
  SequenceRequest request = {.id = id,
                             .prompt_tokens = kPromptTokens,
                             .max_output_tokens = kOutputTokens,
                             .stop_token_ids = {1, 2}};
  for (uint32_t i = 0; i < kPromptTokens; ++i) {
    request.tokens.push_back(static_cast<uint32_t>(id * 131 + i) % 500 + 3);
  }
  request.tenant = "tenant" + std::to_string(id % 4);
  return request;
}

// CPU time of this thread: what others do on the machine does not count.
double CpuSeconds() {
  timespec now = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Every row of the plan samples once its prompt is computed.
v1::StepResult ResultOf(const v1::StepPlan& plan) {
  v1::StepResult result;
  result.set_epoch(plan.epoch());
  result.set_step(plan.step());
  for (int i = 0; i < plan.row_slot_size(); ++i) {
    result.add_row_heads_skipped(1);
    if (plan.row_start(i) + plan.row_count(i) < kPromptTokens) continue;
    result.add_sampled_slot(plan.row_slot(i));
    result.add_sampled_token(5 + plan.row_start(i) % 400);
  }
  result.set_forward_us(1000);
  return result;
}

// Runs the owner's loop, one step ahead, and adds up the time inside the scheduler.
class Loop {
 public:
  explicit Loop(uint32_t live)
      : live_(live), scheduler_({.max_batch_size = live}, Replica(live), 1) {}

  // Fills the batch and computes all prompts, unless so many more decode steps are left.
  void EnsureDecoding(uint32_t steps) {
    if (decode_steps_left_ >= steps + 4) return;
    while (scheduler_.running() > 0) Turn();
    for (uint32_t i = 0; i < live_; ++i) CHECK_OK(scheduler_.Add(Request(++last_id_)));
    bool decoding = false;
    while (!decoding) decoding = Turn();
    decode_steps_left_ = kOutputTokens - kPromptTokens / 2;
  }

  // One turn of the loop; true if its plan was one decode row for each sequence.
  bool Turn() {
    const double start = CpuSeconds();
    std::optional<v1::StepPlan> plan = scheduler_.Plan(0);
    const double planned = CpuSeconds();
    const bool decode = plan && plan->row_slot_size() == static_cast<int>(live_) &&
                        std::all_of(plan->row_count().begin(), plan->row_count().end(),
                                    [](uint32_t count) { return count == 1; });
    if (plan) in_flight_.push_back(*std::move(plan));
    seconds_ = planned - start;
    if (in_flight_.size() == 2 || !decode) {
      const v1::StepResult result = ResultOf(in_flight_.front());
      in_flight_.pop_front();
      const double arrived = CpuSeconds();
      const auto events = scheduler_.Retire(result, 0);
      CHECK_OK(events);
      benchmark::DoNotOptimize(events->size());
      seconds_ += CpuSeconds() - arrived;
    }
    if (decode_steps_left_ > 0) --decode_steps_left_;
    return decode;
  }

  double seconds() const { return seconds_; }

 private:
  const uint32_t live_;
  uint32_t decode_steps_left_ = 0;
  uint64_t last_id_ = 0;
  double seconds_ = 0;  // of the last turn
  Scheduler scheduler_;
  std::deque<v1::StepPlan> in_flight_;
};

void SteadyDecode(benchmark::State& state) {
  Loop loop(static_cast<uint32_t>(state.range(0)));
  for (auto _ : state) {
    loop.EnsureDecoding(1);
    CHECK(loop.Turn());
    state.SetIterationTime(loop.seconds());
  }
}
BENCHMARK(SteadyDecode)->Arg(16)->Arg(64)->Arg(256)->UseManualTime()->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace troupe
