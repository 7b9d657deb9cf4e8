// What a decode step takes on a device, without scheduler, server or network: random weights of a
// shape, every sequence with a prompt of its own, steps launched one ahead of their results.
//
//   worker_decode_bench bench/shapes/qwen3-30b-a3b cuda 1024 1 8 32     tokens of a prompt, then
//                                                                       numbers of sequences
//
// Prints the median time from the end of one step to the end of the next, and the time of all
// prompts. TROUPE_BENCH_KV_GIB: memory for keys and values, by default 60.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/synchronization/notification.h"
#include "base/check.h"
#include "worker/step_engine.h"

namespace troupe {
namespace {

constexpr int kWarmSteps = 16;
constexpr int kTimedSteps = 96;
constexpr int kMaxStepTokens = 8192;

class DecodeBench {
 public:
  DecodeBench(Rank* rank, uint32_t prompt)
      : rank_(rank), engine_(rank, &RealClock::Get()), prompt_(prompt) {}

  void Run(uint32_t sequences) {
    engine_.Reset();
    const int64_t begin_ns = Now();
    const uint32_t at_once = std::max(1U, kMaxStepTokens / prompt_);
    for (uint32_t first = 0; first < sequences; first += at_once) {
      Launch(PromptPlan(first, std::min(sequences, first + at_once)));
      FinishOldest();
    }
    const int64_t prompts_ns = Now() - begin_ns;
    std::vector<int64_t> ends;
    Launch(DecodePlan(sequences, 0));
    for (uint32_t step = 1; step <= kWarmSteps + kTimedSteps; ++step) {
      Launch(DecodePlan(sequences, step));
      FinishOldest();
      ends.push_back(Now());
    }
    FinishOldest();
    std::vector<int64_t> gaps;
    for (size_t i = kWarmSteps; i < ends.size(); ++i) gaps.push_back(ends[i] - ends[i - 1]);
    std::sort(gaps.begin(), gaps.end());
    const double tokens = static_cast<double>(prompt_) * sequences;
    std::printf(
        "%5u sequences of %u: %8.3f ms a step (p10 %.3f, p90 %.3f), prompts %.0f tokens/s\n",
        sequences, prompt_, Ms(gaps[gaps.size() / 2]), Ms(gaps[gaps.size() / 10]),
        Ms(gaps[gaps.size() * 9 / 10]), tokens / (static_cast<double>(prompts_ns) / 1e9));
    std::fflush(stdout);
  }

 private:
  struct UnderWay {
    StepEngine::Launched launched;
    std::unique_ptr<absl::Notification> ended;
  };

  static int64_t Now() { return RealClock::Get().MonotonicNs(); }
  static double Ms(int64_t ns) { return static_cast<double>(ns) / 1e6; }

  void Grant(v1::StepPlan& plan, uint32_t slot, uint32_t block) const {
    const uint32_t blocks = (rank_->config.max_context + kBlockTokens - 1) / kBlockTokens;
    for (uint32_t group = 0; group < rank_->pages->groups().size(); ++group) {
      plan.add_grant_slot(slot);
      plan.add_grant_group(group);
      plan.add_grant_block(block);
      plan.add_grant_page((slot * blocks + block) %
                          rank_->pages->page_count(static_cast<int>(group)));
    }
  }

  v1::StepPlan PromptPlan(uint32_t first, uint32_t end) {
    v1::StepPlan plan;
    for (uint32_t slot = first; slot < end; ++slot) {
      v1::NewSequence& sequence = *plan.add_new_sequences();
      sequence.set_slot(slot);
      const auto vocabulary = static_cast<uint32_t>(rank_->model->description.vocab_size);
      for (uint32_t i = 0; i < prompt_; ++i) sequence.add_tokens(random_() % vocabulary);
      sequence.set_prompt_tokens(prompt_);
      sequence.mutable_sampling()->set_temperature(0);
      sequence.mutable_sampling()->set_seed(slot);
      for (uint32_t block = 0; block * kBlockTokens < prompt_; ++block) Grant(plan, slot, block);
      AddRow(plan, slot, 0, prompt_);
    }
    return plan;
  }

  v1::StepPlan DecodePlan(uint32_t sequences, uint32_t step) const {
    v1::StepPlan plan;
    const uint32_t start = prompt_ + step;
    for (uint32_t slot = 0; slot < sequences; ++slot) {
      if (start % kBlockTokens == 0) Grant(plan, slot, start / kBlockTokens);
      AddRow(plan, slot, start, 1);
    }
    return plan;
  }

  static void AddRow(v1::StepPlan& plan, uint32_t slot, uint32_t start, uint32_t count) {
    plan.add_row_slot(slot);
    plan.add_row_start(start);
    plan.add_row_count(count);
  }

  void Launch(const v1::StepPlan& plan) {
    CHECK_OK(engine_.Prepare(plan));
    auto launched = engine_.Launch(plan);
    CHECK_OK(launched.status());
    under_way_.push_back({*std::move(launched), std::make_unique<absl::Notification>()});
    absl::Notification* ended = under_way_.back().ended.get();
    if (!rank_->ops->WhenDone([ended] { ended->Notify(); })) {
      rank_->ops->Synchronize();
      ended->Notify();
    }
  }

  void FinishOldest() {
    under_way_.front().ended->WaitForNotification();
    v1::StepResult result;
    CHECK_OK(engine_.Finish(under_way_.front().launched, result));
    CHECK_EQ(result.failed_slot_size(), 0);
    under_way_.pop_front();
  }

  Rank* rank_;
  StepEngine engine_;
  uint32_t prompt_;
  std::mt19937 random_{1};
  std::deque<UnderWay> under_way_;
};

int Main(int argc, char** argv) {
  std::vector<uint32_t> numbers;
  for (int i = 3; i < argc; ++i) {
    uint32_t number = 0;
    if (absl::SimpleAtoi(argv[i], &number) && number > 0) numbers.push_back(number);
  }
  if (argc < 5 || numbers.size() != static_cast<size_t>(argc) - 3) {
    std::fputs("wanted: SHAPE_FOLDER DEVICE PROMPT_TOKENS SEQUENCES...\n", stderr);
    return 2;
  }
  const uint32_t prompt = numbers[0];
  numbers.erase(numbers.begin());
  const char* gib = std::getenv("TROUPE_BENCH_KV_GIB");
  Rank::Config config;
  config.model = argv[1];
  config.device = argv[2];
  config.dummy_weights = true;
  config.kv_memory_bytes = static_cast<int64_t>(gib == nullptr ? 60 : std::atoi(gib)) << 30;
  config.max_rows = static_cast<int>(*std::max_element(numbers.begin(), numbers.end()));
  config.max_step_tokens = std::max(kMaxStepTokens, static_cast<int>(prompt));
  config.max_context = static_cast<int>(prompt) + kWarmSteps + kTimedSteps + kBlockTokens;
  auto rank = Rank::Open(config, /*part=*/std::nullopt, nullptr);
  CHECK_OK(rank.status());
  DecodeBench bench(rank->get(), prompt);
  for (const uint32_t sequences : numbers) bench.Run(sequences);
  return 0;
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) { return troupe::Main(argc, argv); }
