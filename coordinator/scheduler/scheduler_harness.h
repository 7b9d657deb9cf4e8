// A scheduler and a checking worker in a loop on a virtual clock, for tests. Not thread-safe.
#ifndef TROUPE_COORDINATOR_SCHEDULER_SCHEDULER_HARNESS_H_
#define TROUPE_COORDINATOR_SCHEDULER_SCHEDULER_HARNESS_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/scheduler/fake_worker.h"
#include "coordinator/scheduler/scheduler.h"

namespace troupe::testing {

// Two groups: all tokens, and a window of 40; blocks of 16 tokens.
inline ReplicaInfo SmallReplica(uint32_t full_pages = 200, uint32_t window_pages = 200) {
  return {
      .worker = "fake",
      .identity = std::string(32, 'i'),
      .block_tokens = 16,
      .max_rows = 32,
      .max_step_tokens = 256,
      .max_context = 2000,
      .has_cache = false,
      .groups = {
          {.name = "full", .page_bytes = 1000, .page_count = full_pages},
          {.name = "window", .window_tokens = 40, .page_bytes = 1000, .page_count = window_pages}}};
}

// Scheduler and worker, and what every sequence received. A step takes its forward_us.
class Harness {
 public:
  struct Got {
    std::vector<uint32_t> tokens;
    std::vector<int64_t> token_us;
    uint32_t computed = 0;
    FinishReason finish = FinishReason::kNone;
    SequenceFigures figures;
  };

  explicit Harness(Scheduler::Config config = {}, ReplicaInfo replica = SmallReplica(),
                   const FakeWorker::Config& worker = {}, FakeCache* cache = nullptr)
      : replica_(std::move(replica)),
        scheduler(config, replica_, 7),
        worker(worker, replica_, 7, cache == nullptr ? own_cache_ : *cache, 1) {}

  // A prompt of `prompt` tokens that starts like all prompts of the same `family`.
  static SequenceRequest Request(uint64_t id, uint32_t prompt, uint32_t output,
                                 uint32_t family = 0) {
    SequenceRequest request = {.id = id, .prompt_tokens = prompt, .max_output_tokens = output};
    for (uint32_t i = 0; i < prompt; ++i) request.tokens.push_back(family * 1000 + i);
    request.tenant_namespace = "0";
    request.sampling.set_seed(FakeWorker::EncodeSeed(0, static_cast<uint32_t>(id)));
    return request;
  }

  void Add(const SequenceRequest& request) {
    const absl::Status status = scheduler.Add(request);
    ASSERT_TRUE(status.ok()) << status;
  }

  std::optional<v1::StepPlan> Plan() {
    std::optional<v1::StepPlan> plan = scheduler.Plan(now_us);
    if (plan) {
      worker.Accept(*plan);
      plans.push_back(*plan);
    }
    return plan;
  }

  std::vector<SequenceEvent> Retire() {
    const v1::StepResult result = worker.Run();
    now_us += static_cast<int64_t>(result.forward_us());
    absl::StatusOr<std::vector<SequenceEvent>> events = scheduler.Retire(result, now_us);
    EXPECT_TRUE(events.ok()) << events.status();
    for (const SequenceEvent& event : *events) {
      Got& to = got[event.sequence];
      to.computed += event.tokens_computed;
      if (event.figures) to.figures = *event.figures;
      to.finish = event.finish;
      if (!event.has_token) continue;
      EXPECT_EQ(event.index, to.tokens.size());
      to.tokens.push_back(event.token);
      to.token_us.push_back(now_us);
    }
    return *events;
  }

  // Plans ahead, then retires a step. False: nothing to do, now or later.
  bool Turn() {
    while (Plan()) {
    }
    if (worker.has_steps()) {
      Retire();
      return true;
    }
    const std::optional<int64_t> wakeup = scheduler.NextWakeup(now_us);
    if (wakeup) now_us = std::max(now_us, *wakeup);
    return wakeup.has_value();
  }

  void RunAll() {
    for (int turns = 0; Turn(); ++turns) ASSERT_LT(turns, 100'000);
    EXPECT_EQ(scheduler.running() + scheduler.waiting(), 0u);
    for (uint32_t g = 0; g < 2; ++g) EXPECT_EQ(PagesUsed(g), 0u);
  }

  v1::WorkerStatus Status() const {
    v1::WorkerStatus status;
    scheduler.Describe(status);
    return status;
  }
  uint32_t PagesUsed(int group) const { return Status().groups(group).pages_used(); }

  const ReplicaInfo replica_;
  FakeCache own_cache_;
  Scheduler scheduler;
  FakeWorker worker;
  int64_t now_us = 0;
  std::map<uint64_t, Got> got;
  std::vector<v1::StepPlan> plans;
};

}  // namespace troupe::testing

#endif  // TROUPE_COORDINATOR_SCHEDULER_SCHEDULER_HARNESS_H_
