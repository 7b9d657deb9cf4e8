#include "tests/golden/abacus_check.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/status_util.h"
#include "tests/golden/golden_file.h"
#include "worker/testing/replica_harness.h"

namespace troupe {
namespace {

constexpr uint32_t kChunkSeed = 7;
constexpr int kLongestChunk = 97;
constexpr const char* kPrompts[] = {"addsub",     "mul",  "expr",  "linear",    "recursion",
                                    "pythagoras", "word", "lists", "needle_700"};

struct Prompt {
  std::vector<uint32_t> tokens;
  RunnerHarness::Logits want;  // at the last positions
  std::vector<uint32_t> greedy;
  size_t done = 0;
  uint32_t next = 0;
};

// A NaN, once met, is infinitely wrong.
float Worse(float error, const std::vector<float>& got, const std::vector<float>& want) {
  for (size_t i = 0; i < want.size(); ++i) {
    error = std::isfinite(got[i]) ? std::max(error, std::abs(got[i] - want[i])) : INFINITY;
  }
  return error;
}

std::vector<Prompt> ReadPrompts() {
  std::vector<Prompt> prompts;
  for (const char* name : kPrompts) {
    const GoldenFile golden(name);
    prompts.push_back(
        {golden.Tokens("input_ids"), golden.Rows("logits_last"), golden.Tokens("greedy_ids")});
  }
  return prompts;
}

// Logits at every position, so that those of the last can be compared wherever chunks end.
void FeedAll(ReplicaHarness& harness, std::vector<Prompt>& prompts, ModelComparison& result) {
  std::mt19937 random(kChunkSeed);
  while (std::any_of(prompts.begin(), prompts.end(),
                     [](const Prompt& prompt) { return prompt.done < prompt.tokens.size(); })) {
    std::vector<RunnerHarness::Row> rows;
    for (size_t p = 0; p < prompts.size(); ++p) {
      const Prompt& prompt = prompts[p];
      const size_t count =
          std::min<size_t>(prompt.tokens.size() - prompt.done, 1 + random() % kLongestChunk);
      if (count == 0) continue;
      RunnerHarness::Row row{.slot = static_cast<uint32_t>(p)};
      row.tokens.assign(prompt.tokens.begin() + static_cast<int64_t>(prompt.done),
                        prompt.tokens.begin() + static_cast<int64_t>(prompt.done + count));
      row.logits = static_cast<int>(count);
      rows.push_back(std::move(row));
    }
    const RunnerHarness::Logits logits = harness.Step(rows);
    size_t index = 0;
    for (const RunnerHarness::Row& row : rows) {
      Prompt& prompt = prompts[row.slot];
      const size_t first_wanted = prompt.tokens.size() - prompt.want.size();
      for (size_t i = 0; i < row.tokens.size(); ++i, ++index, ++prompt.done) {
        if (prompt.done < first_wanted) continue;
        result.error = Worse(result.error, logits[index], prompt.want[prompt.done - first_wanted]);
      }
      prompt.next = RunnerHarness::Best(logits[index - 1]);
    }
  }
}

void ContinueAll(ReplicaHarness& harness, std::vector<Prompt>& prompts, ModelComparison& result) {
  std::vector<bool> equal(prompts.size(), true);
  for (size_t g = 0;; ++g) {
    std::vector<RunnerHarness::Row> rows;
    for (size_t p = 0; p < prompts.size(); ++p) {
      Prompt& prompt = prompts[p];
      if (g >= prompt.greedy.size()) continue;
      ++result.greedy_tokens;
      equal[p] = equal[p] && prompt.next == prompt.greedy[g];
      result.greedy_equal += equal[p] ? 1 : 0;
      if (g + 1 < prompt.greedy.size()) {
        rows.push_back({.slot = static_cast<uint32_t>(p), .tokens = {prompt.next}});
      }
    }
    if (rows.empty()) return;
    const RunnerHarness::Logits logits = harness.Step(rows);
    for (size_t i = 0; i < rows.size(); ++i) {
      prompts[rows[i].slot].next = RunnerHarness::Best(logits[i]);
    }
  }
}

}  // namespace

absl::StatusOr<ModelComparison> CompareAbacus(const CompareOptions& options) {
  TROUPE_ASSIGN_OR_RETURN(const Checkpoint checkpoint,
                          Checkpoint::Open(SourcePath("models/abacus")));
  RunnerHarness::Options runner;
  runner.slots = static_cast<int>(std::size(kPrompts));
  runner.max_step_tokens = runner.max_logit_tokens = runner.slots * kLongestChunk;
  const auto make_ops = [&] {
    return MakeDeviceOps(options.device, options.layout.world() > 1 ? 1 : 0);
  };
  TROUPE_ASSIGN_OR_RETURN(
      const std::unique_ptr<ReplicaHarness> harness,
      ReplicaHarness::Create(checkpoint, make_ops,
                             {.runner = runner,
                              .layout = options.layout,
                              .transport = options.gloo ? ReplicaHarness::Transport::kGloo
                                                        : ReplicaHarness::Transport::kMemory}));
  std::vector<Prompt> prompts = ReadPrompts();
  ModelComparison result{.config = kModelConfigs[0], .feed = PromptFeed::kRagged};
  FeedAll(*harness, prompts, result);
  ContinueAll(*harness, prompts, result);
  return result;
}

}  // namespace troupe
