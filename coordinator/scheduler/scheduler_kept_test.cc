// State that outlives a session, against a worker that checks what every token reads.

#include <gtest/gtest.h>

#include "coordinator/scheduler/scheduler_harness.h"

namespace troupe::testing {
namespace {

// Sequences of several lengths, two of them with a common prefix, that decode or are still in their
// prompts after `turns`.
struct Resumed {
  explicit Resumed(int turns) {
    for (uint64_t id = 1; id <= 5; ++id) {
      const auto length = static_cast<uint32_t>(id == 5 ? 900 : 30 * id);
      requests.push_back(
          Harness::Request(id, length, 120, id == 2 ? 1 : static_cast<uint32_t>(id)));
    }
    for (const SequenceRequest& request : requests) old.Add(request);
    for (int i = 0; i < turns; ++i) old.Turn();
    // Steps in flight are lost with the session.
    while (old.Plan()) {
    }
    evacuated = old.scheduler.Evacuate();
    worker_before = old.worker.tokens_computed();
    old.worker.Reopen(8);
  }

  std::vector<SequenceRequest> requests;
  Harness old;
  std::vector<SequenceRequest> evacuated;
  uint64_t worker_before = 0;
};

// Runs `scheduler` on the old harness's worker to the end.
void RunOn(Scheduler& scheduler, Resumed& r) {
  int64_t now_us = 1'000'000'000;
  while (true) {
    while (std::optional<v1::StepPlan> plan = scheduler.Plan(now_us)) r.old.worker.Accept(*plan);
    if (!r.old.worker.has_steps()) break;
    const v1::StepResult result = r.old.worker.Run();
    const auto events = scheduler.Retire(result, ++now_us);
    ASSERT_TRUE(events.ok()) << events.status();
    for (const SequenceEvent& event : *events) {
      if (!event.has_token) continue;
      EXPECT_EQ(event.index, r.old.got[event.sequence].tokens.size());
      r.old.got[event.sequence].tokens.push_back(event.token);
    }
  }
}

TEST(SchedulerKept, GoesOnFromStateThatIsThere) {
  Harness whole;
  for (const SequenceRequest& request : Resumed(0).requests) whole.Add(request);
  whole.RunAll();
  for (const int turns : {3, 8, 20, 60, 110}) {
    Resumed r(turns);
    Scheduler next({}, SmallReplica(), 8);
    uint64_t lacking = 0;
    for (const SequenceRequest& sequence : r.evacuated) {
      const uint32_t computed = sequence.kept.has_value() ? sequence.kept->computed : 0;
      lacking += sequence.tokens.size() - computed + 120 -
                 (sequence.tokens.size() - sequence.prompt_tokens) - 1;
      ASSERT_TRUE(next.Resume(sequence).ok());
    }
    RunOn(next, r);
    for (uint64_t id = 1; id <= 5; ++id) {
      EXPECT_EQ(r.old.got[id].tokens, whole.got[id].tokens) << id;
    }
    // A step beyond the end may have been planned for each.
    EXPECT_LE(r.old.worker.tokens_computed() - r.worker_before, lacking + 5) << turns;
    v1::WorkerStatus status;
    next.Describe(status);
    EXPECT_GT(status.tokens_kept(), 0u);
    for (int g = 0; g < 2; ++g) EXPECT_EQ(status.groups(g).pages_used(), 0u);
  }
}

TEST(SchedulerKept, StateThatDoesNotFitIsComputedAgain) {
  Resumed r(40);
  Scheduler next({}, SmallReplica(/*full_pages=*/200, /*window_pages=*/200), 8);
  for (SequenceRequest& sequence : r.evacuated) {
    ASSERT_TRUE(sequence.kept.has_value());
    if (sequence.id == 1) sequence.kept->table[0][0] = 100'000;
    if (sequence.id == 2) sequence.kept->table[1].pop_back();
    if (sequence.id == 3) sequence.kept->computed = 5'000;
    if (sequence.id == 4) sequence.kept->table[1].back() = kNoPageId;
    ASSERT_TRUE(next.Resume(sequence).ok());
  }
  // Their state is given back with them.
  ASSERT_TRUE(next.Cancel(5));
  v1::WorkerStatus status;
  next.Describe(status);
  for (int g = 0; g < 2; ++g) EXPECT_EQ(status.groups(g).pages_used(), 0u);
  RunOn(next, r);
  Harness whole;
  for (const SequenceRequest& request : r.requests) whole.Add(request);
  whole.RunAll();
  for (uint64_t id = 1; id <= 4; ++id) EXPECT_EQ(r.old.got[id].tokens, whole.got[id].tokens) << id;
}

TEST(SchedulerKept, StateSurvivesASessionThatNeverRan) {
  Resumed r(40);
  Scheduler idle({}, SmallReplica(), 9);
  for (const SequenceRequest& sequence : r.evacuated) ASSERT_TRUE(idle.Resume(sequence).ok());
  Scheduler next({}, SmallReplica(), 8);
  for (const SequenceRequest& sequence : idle.Evacuate()) {
    ASSERT_TRUE(sequence.kept.has_value());
    EXPECT_EQ(sequence.kept->epoch, 9u);
    ASSERT_TRUE(next.Resume(sequence).ok());
  }
  ASSERT_TRUE(next.Plan(0).has_value());
  v1::WorkerStatus status;
  next.Describe(status);
  EXPECT_GT(status.tokens_kept(), 0u);
}

}  // namespace
}  // namespace troupe::testing
