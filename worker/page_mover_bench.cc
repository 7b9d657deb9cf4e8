// How fast pages move between a device and the host's memory, and what decode steps lose by it.
//
//   worker_page_mover_bench MODEL [DEVICE [SEQUENCES [CONTEXT]]]
//
// MODEL is a folder with a config.json, weights are random; SEQUENCES decode at CONTEXT tokens, a
// step launched ahead as when serving, while plans of a mover spill and fill other pages of the
// same cache as fast as they go. The ceiling is one copy of a gibibyte from or to the same memory.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "base/check.h"
#include "worker/page_mover.h"
#include "worker/rank.h"
#include "worker/step_engine.h"

namespace troupe {
namespace {

constexpr int kSteps = 60;
constexpr uint32_t kMovedPages = 96;  // on the device, of each group
constexpr uint32_t kBatchPages = 16;  // of a group that one plan moves
constexpr size_t kMostBatches = 3;

double Seconds() { return static_cast<double>(RealClock::Get().MonotonicNs()) / 1e9; }

struct Shape {
  std::string model;
  std::string device = "cuda";
  uint32_t sequences = 64;
  uint32_t context = 2048;

  uint32_t blocks() const { return (context + kSteps) / kBlockTokens + 2; }
};

std::unique_ptr<Rank> OpenRank(const Shape& shape) {
  Rank::Config config;
  config.model = shape.model;
  config.dummy_weights = true;
  config.device = shape.device;
  config.max_rows = static_cast<int>(shape.sequences);
  config.max_context = static_cast<int>(shape.blocks() * kBlockTokens);
  config.max_step_tokens = 2048;
  const bool small = shape.device == "cpu";
  config.kv_memory_bytes = int64_t{small ? 1 : 60} << 30;
  config.host_kv_memory_bytes = int64_t{small ? 1 : 6} << 30;
  auto rank = Rank::Open(config, /*part=*/std::nullopt, nullptr);
  CHECK_OK(rank.status());
  return *std::move(rank);
}

// The caller's side of spills and fills: pages behind those that decode, batch after batch.
class Mover {
 public:
  enum Way { kNone = 0, kOut = 1, kIn = 2, kBoth = 3 };

  Mover(Rank* rank, Way way) : rank_(rank), way_(way) {}

  // Starts batches as far as there is room for them.
  void Work() {
    while (!under_way_.empty() && under_way_.front()->HasBeenNotified()) under_way_.pop_front();
    while (way_ != kNone && under_way_.size() < kMostBatches) StartBatch();
  }
  void Finish() {
    for (const auto& done : under_way_) done->WaitForNotification();
    under_way_.clear();
  }
  int64_t bytes() const { return bytes_; }

 private:
  void StartBatch() {
    v1::StepPlan plan;
    const auto groups = static_cast<uint32_t>(rank_->pages->groups().size());
    for (uint32_t g = 0; g < groups; ++g) {
      const uint32_t device = rank_->pages->page_count(static_cast<int>(g));
      const uint32_t host = rank_->host_pages->page_count(g);
      for (uint32_t i = 0; i < kBatchPages; ++i) {
        const uint32_t number = batch_ * kBatchPages + i;
        const uint32_t half = host / 2;
        if ((way_ & kOut) != 0) {
          plan.add_spill_group(g);
          plan.add_spill_page(device - 1 - number % (kMovedPages / 2));
          plan.add_spill_host_page(number % half);
        }
        if ((way_ & kIn) == 0) continue;
        plan.add_fill_group(g);
        plan.add_fill_id(number);
        plan.add_fill_host_page(half + number % half);
        plan.add_fill_page(device - 1 - kMovedPages / 2 - number % (kMovedPages / 2));
      }
    }
    ++batch_;
    const auto moves = PlanMoves(plan, *rank_->pages, rank_->host_pages.get());
    CHECK_OK(moves.status());
    rank_->copies->Out(moves->out_at_once, SideCopies::Reuse::kAtOnce);
    rank_->copies->In(moves->in);
    for (const SideCopy& copy : moves->out_at_once) bytes_ += copy.bytes;
    bytes_ += moves->in_bytes;
    auto done = std::make_shared<absl::Notification>();
    under_way_.push_back(done);
    if (!rank_->copies->WhenDone([done] { done->Notify(); })) done->Notify();
  }

  Rank* const rank_;
  const Way way_;
  uint32_t batch_ = 0;
  int64_t bytes_ = 0;
  std::deque<std::shared_ptr<absl::Notification>> under_way_;
};

v1::StepPlan FirstPlan(const Rank& rank, const Shape& shape) {
  v1::StepPlan plan;
  for (uint32_t slot = 0; slot < shape.sequences; ++slot) {
    v1::NewSequence& sequence = *plan.add_new_sequences();
    sequence.set_slot(slot);
    for (uint32_t i = 0; i <= shape.context; ++i) sequence.add_tokens(3 + (i * 7 + slot) % 500);
    sequence.set_prompt_tokens(shape.context + 1);
    sequence.mutable_sampling()->set_temperature(0);
    sequence.mutable_sampling()->set_seed(slot);
    for (uint32_t g = 0; g < rank.pages->groups().size(); ++g) {
      const uint32_t own = rank.pages->page_count(static_cast<int>(g)) - kMovedPages;
      for (uint32_t block = 0; block < shape.blocks(); ++block) {
        plan.add_grant_slot(slot);
        plan.add_grant_group(g);
        plan.add_grant_block(block);
        plan.add_grant_page((slot * shape.blocks() + block) % own);
      }
    }
  }
  return plan;
}

struct Measured {
  double step_ms = 0;
  double gigabytes_per_s = 0;
};

// Pages hold nothing that was computed, which takes as long.
Measured Decode(Rank* rank, const Shape& shape, Mover::Way way) {
  StepEngine engine(rank, &RealClock::Get());
  engine.Reset();
  CHECK_OK(engine.Prepare(FirstPlan(*rank, shape)));
  Mover mover(rank, way);
  struct Step {
    StepEngine::Launched launched;
    std::shared_ptr<absl::Notification> done;
  };
  std::deque<Step> steps;
  const auto finish = [&] {
    steps.front().done->WaitForNotification();
    v1::StepResult result;
    CHECK_OK(engine.Finish(steps.front().launched, result));
    steps.pop_front();
  };
  constexpr int kWarm = 10;
  double begin_s = 0;
  int64_t begin_bytes = 0;
  for (int i = 0; i < kSteps; ++i) {
    if (i == kWarm) {
      begin_s = Seconds();
      begin_bytes = mover.bytes();
    }
    v1::StepPlan plan;
    for (uint32_t slot = 0; slot < shape.sequences; ++slot) {
      plan.add_row_slot(slot);
      plan.add_row_start(shape.context + i);
      plan.add_row_count(1);
    }
    mover.Work();
    CHECK_OK(engine.Prepare(plan));
    auto launched = engine.Launch(plan);
    CHECK_OK(launched.status());
    steps.push_back({*std::move(launched), std::make_shared<absl::Notification>()});
    const auto done = steps.back().done;
    if (!rank->ops->WhenDone([done] { done->Notify(); })) done->Notify();
    if (steps.size() == StepEngine::kMostLaunched) finish();
  }
  while (!steps.empty()) finish();
  const double taken_s = Seconds() - begin_s;
  Measured measured{.step_ms = taken_s * 1e3 / (kSteps - kWarm)};
  const int64_t bytes = mover.bytes() - begin_bytes;
  mover.Finish();
  measured.gigabytes_per_s = static_cast<double>(bytes) / taken_s / 1e9;
  return measured;
}

// Of one large copy.
double CeilingGigabytes(Rank* rank, bool in) {
  const int64_t bytes = std::min(
      int64_t{1} << 30, rank->pages->groups()[0].page_bytes * rank->host_pages->page_count(0));
  const SideCopy copy{.device = rank->pages->Page(0, 0)->data(),
                      .host = rank->host_pages->Page(0, 0),
                      .bytes = bytes};
  double best_s = 1e9;
  for (int i = 0; i < 4; ++i) {
    const double begin_s = Seconds();
    if (in) {
      rank->copies->In({&copy, 1});
    } else {
      rank->copies->Out({&copy, 1}, SideCopies::Reuse::kAfterIn);
    }
    rank->copies->Synchronize();
    best_s = std::min(best_s, Seconds() - begin_s);
  }
  return static_cast<double>(bytes) / best_s / 1e9;
}

// Batches one after another, with no step beside them.
double AloneGigabytes(Rank* rank, Mover::Way way) {
  Mover mover(rank, way);
  const double begin_s = Seconds();
  while (Seconds() < begin_s + 0.5) mover.Work();
  mover.Finish();
  return static_cast<double>(mover.bytes()) / (Seconds() - begin_s) / 1e9;
}

int Main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s MODEL [DEVICE [SEQUENCES [CONTEXT]]]\n", argv[0]);
    return 2;
  }
  Shape shape{.model = argv[1]};
  if (argc > 2) shape.device = argv[2];
  if (argc > 3) shape.sequences = static_cast<uint32_t>(std::strtoul(argv[3], nullptr, 10));
  if (argc > 4) shape.context = static_cast<uint32_t>(std::strtoul(argv[4], nullptr, 10));
  const std::unique_ptr<Rank> rank = OpenRank(shape);
  for (const StateGroup& group : rank->pages->groups()) {
    std::printf("group %s: pages of %.2f MB\n", group.name.c_str(), group.page_bytes / 1e6);
  }
  const double in = CeilingGigabytes(rank.get(), /*in=*/true);
  const double out = CeilingGigabytes(rank.get(), /*in=*/false);
  std::printf("one copy of 1 GiB: %.1f GB/s in, %.1f out\n", in, out);
  const double alone_in = AloneGigabytes(rank.get(), Mover::kIn);
  const double alone_out = AloneGigabytes(rank.get(), Mover::kOut);
  std::printf("pages without steps: %.1f GB/s in (%.0f %%), %.1f out (%.0f %%), %.1f both ways\n",
              alone_in, 100 * alone_in / in, alone_out, 100 * alone_out / out,
              AloneGigabytes(rank.get(), Mover::kBoth));
  const Measured alone = Decode(rank.get(), shape, Mover::kNone);
  std::printf("a decode step of %u sequences at %u tokens: %.3f ms\n", shape.sequences,
              shape.context, alone.step_ms);
  const std::pair<const char*, Mover::Way> ways[] = {
      {"spills", Mover::kOut}, {"fills", Mover::kIn}, {"both", Mover::kBoth}};
  for (const auto& [name, way] : ways) {
    const Measured beside = Decode(rank.get(), shape, way);
    std::printf("beside %-6s %.3f ms (%+.1f %%), %.1f GB/s moved\n", name, beside.step_ms,
                100 * (beside.step_ms / alone.step_ms - 1), beside.gigabytes_per_s);
  }
  const Measured again = Decode(rank.get(), shape, Mover::kNone);
  std::printf("alone again  %.3f ms (%+.1f %%)\n", again.step_ms,
              100 * (again.step_ms / alone.step_ms - 1));
  return 0;
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) { return troupe::Main(argc, argv); }
