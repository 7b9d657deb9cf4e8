#include "coordinator/job_trace.h"

#include <gtest/gtest.h>

namespace troupe {
namespace {

constexpr uint32_t kHeads = 10;

SequenceEvent Chunk(uint32_t tokens, uint32_t skipped, int64_t admitted_us = 100) {
  SequenceEvent event = {.tokens_computed = tokens, .heads_skipped = skipped};
  event.figures.emplace().admitted_us = admitted_us;
  event.figures->cached_tokens = 16;
  event.figures->blocks_reused_local = 1;
  return event;
}

SequenceEvent Token(uint32_t index, uint32_t tokens = 1, uint32_t skipped = 0) {
  SequenceEvent event = Chunk(tokens, skipped);
  event.has_token = true;
  event.index = index;
  return event;
}

TEST(JobTrace, CountsUsage) {
  JobTrace trace;
  trace.OnPrompt(36);
  trace.OnStarted("w1");
  EXPECT_EQ(trace.epoch(), 1u);
  trace.OnProgress(Chunk(15, 30), kHeads, 200);
  trace.OnProgress(Token(0, 5, 10), kHeads, 300);
  trace.OnProgress(Token(1, 1, 2), kHeads, 400);
  const v1::Finished finished = trace.Finish(/*with_spans=*/false, 500);
  EXPECT_FALSE(finished.has_trace());
  const v1::Usage& usage = finished.usage();
  EXPECT_EQ(usage.prompt_tokens(), 36u);
  EXPECT_EQ(usage.output_tokens(), 2u);
  EXPECT_EQ(usage.cached_tokens(), 16u);
  EXPECT_EQ(usage.kv_blocks_reused_local(), 1u);
  EXPECT_EQ(usage.kv_blocks_reused_cache(), 0u);
  EXPECT_EQ(usage.heads_total(), 210u);
  EXPECT_EQ(usage.heads_skipped(), 42u);
  EXPECT_EQ(usage.queue_us(), 100u);
  EXPECT_EQ(usage.ttft_us(), 300u);
  EXPECT_EQ(usage.total_us(), 500u);
  EXPECT_EQ(usage.worker_changes(), 0u);
}

TEST(JobTrace, TheTreeHasQueuePrefillStepsAndAnswer) {
  JobTrace trace;
  trace.OnPrompt(20);
  trace.OnStarted("w1");
  trace.OnProgress(Token(0, 20, 40), kHeads, 300);
  trace.OnProgress(Token(1, 1, 5), kHeads, 400);
  const v1::Step step =
      trace.OnStep({.index = 0, .text = "1+1", .first_token = 0, .token_count = 2}, 400);
  EXPECT_EQ(step.text(), "1+1");
  EXPECT_EQ(step.token_count(), 2u);
  EXPECT_EQ(step.duration_us(), 100u);
  trace.OnProgress(Token(2, 1, 7), kHeads, 600);
  const v1::Trace tree = trace.Finish(/*with_spans=*/true, 600).trace();
  ASSERT_EQ(tree.spans_size(), 5);
  const char* names[] = {"request", "queue", "prefill", "step", "answer"};
  const uint64_t starts[] = {0, 0, 100, 300, 400};
  const uint64_t ends[] = {600, 100, 300, 400, 600};
  const uint64_t totals[] = {220, 0, 200, 10, 10};
  const uint64_t skipped[] = {52, 0, 40, 5, 7};
  for (int i = 0; i < 5; ++i) {
    const v1::TraceSpan& span = tree.spans(i);
    SCOPED_TRACE(span.ShortDebugString());
    EXPECT_EQ(span.id(), static_cast<uint32_t>(i + 1));
    EXPECT_EQ(span.parent(), i == 0 ? 0u : 1u);
    EXPECT_EQ(span.name(), names[i]);
    EXPECT_EQ(span.start_us(), starts[i]);
    EXPECT_EQ(span.end_us(), ends[i]);
    EXPECT_EQ(span.heads_total(), totals[i]);
    EXPECT_EQ(span.heads_skipped(), skipped[i]);
    EXPECT_EQ(span.worker(), "w1");
  }
  EXPECT_EQ(tree.spans(0).token_count(), 3u);
  EXPECT_EQ(tree.spans(2).token_count(), 20u);
}

TEST(JobTrace, FollowsTheRequestToAnotherWorker) {
  JobTrace trace;
  trace.OnStarted("w1");
  trace.OnProgress(Token(0, 20), kHeads, 300);
  trace.OnStarted("w2");
  EXPECT_EQ(trace.epoch(), 2u);
  SequenceEvent again = Token(1, 21);
  again.figures = SequenceFigures{.admitted_us = 900, .cached_tokens = 500};
  trace.OnProgress(again, kHeads, 1000);
  const v1::Finished finished = trace.Finish(/*with_spans=*/true, 1000);
  EXPECT_EQ(finished.usage().worker_changes(), 1u);
  EXPECT_EQ(finished.usage().heads_total(), 410u) << "computing again counts";
  EXPECT_EQ(finished.usage().queue_us(), 100u);
  EXPECT_EQ(finished.usage().cached_tokens(), 16u);
  EXPECT_EQ(finished.trace().spans(0).worker(), "w2");
}

TEST(JobTrace, AWorkerLostBeforeItsFirstTokenLeavesNoFigures) {
  JobTrace trace;
  trace.OnStarted("w1");
  trace.OnStarted("w2");
  trace.OnProgress(Chunk(15, 0, 700), kHeads, 800);
  SequenceEvent token = Token(0);
  token.figures = SequenceFigures{.admitted_us = 700, .cached_tokens = 32};
  trace.OnProgress(token, kHeads, 900);
  const v1::Usage usage = trace.Finish(/*with_spans=*/false, 900).usage();
  EXPECT_EQ(usage.queue_us(), 700u);
  EXPECT_EQ(usage.cached_tokens(), 32u);
}

}  // namespace
}  // namespace troupe
