// How prompts and decoding share steps on a device whose steps take long however few tokens they
// hold, as a GPU's do that reads its weights in each; on the checking worker's virtual clock.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "coordinator/scheduler/scheduler_harness.h"

namespace troupe {
namespace {

using testing::FakeWorker;
using testing::Harness;
using testing::SmallReplica;

constexpr int64_t kStepUs = 10'000;
constexpr int64_t kTokenUs = 25;

Harness MakeHarness() {
  ReplicaInfo replica = SmallReplica(4000, 4000);
  replica.max_step_tokens = 2048;
  FakeWorker::Config worker;
  worker.forward_us = [](uint32_t tokens) { return kStepUs + kTokenUs * tokens; };
  return Harness({.max_batch_size = 32}, replica, worker);
}

// The first comes a moment before the others, so that prompts meet a row that decodes.
TEST(SchedulerPace, PromptsThatComeTogetherDecodeTogether) {
  for (const uint64_t requests : {8, 32}) {
    Harness h = MakeHarness();
    h.Add(Harness::Request(1, 1024, 128, 1));
    h.Turn();
    for (uint64_t id = 2; id <= requests; ++id) h.Add(Harness::Request(id, 1024, 128, id));
    h.RunAll();
    int64_t last_begins = 0;
    int64_t first_ends = h.now_us;
    for (const auto& [id, got] : h.got) {
      last_begins = std::max(last_begins, got.token_us.front());
      first_ends = std::min(first_ends, got.token_us.back());
    }
    EXPECT_LT(last_begins, first_ends) << requests;
    // What the prompts cost at least, and twice as much again for the steps around them.
    EXPECT_LT(last_begins, 3 * kTokenUs * 1024 * static_cast<int64_t>(requests)) << requests;
  }
}

// Beside many rows a prompt makes no step more than twice as long, and gets its half.
TEST(SchedulerPace, APromptTakesAsLongAgainAsDecoding) {
  Harness h = MakeHarness();
  for (uint64_t id = 1; id <= 16; ++id) h.Add(Harness::Request(id, 64, 400, id));
  for (int turn = 0; turn < 60; ++turn) h.Turn();
  const int64_t from_us = h.now_us;
  h.Add(Harness::Request(100, 1900, 2, 50));
  while (h.got[100].tokens.empty()) ASSERT_TRUE(h.Turn());
  const std::vector<int64_t>& times = h.got[1].token_us;
  int64_t worst = 0;
  for (size_t i = 1; i < times.size(); ++i) {
    if (times[i] > from_us) worst = std::max(worst, times[i] - times[i - 1]);
  }
  const int64_t decode_us = kStepUs + 16 * kTokenUs;
  EXPECT_LE(worst, decode_us * 23 / 10);
  const int64_t prompt_us = 1900 * kTokenUs;
  EXPECT_LE(h.now_us - from_us, 3 * prompt_us + 3 * decode_us);
}

}  // namespace
}  // namespace troupe
