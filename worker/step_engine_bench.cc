// Host time of a decode step: what the worker does for 256 sequences beside what the device does.
//
//   worker_step_engine_bench                           without a device: what its driver takes for
//                                                      a launch and a few copies comes on top
//   TROUPE_TEST_DEVICE=cuda worker_step_engine_bench   with all of it, the device being idle
//
// Without a device operations are left out, and a step's section counts as kept
// (kernels/replays.h).
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "worker/step_engine.h"

namespace troupe {
namespace {

constexpr uint32_t kPromptTokens = 65;
constexpr int kMaxContext = 2048;

// Every section is kept.
class Kept final : public Replays {
 public:
  bool keeps() const override { return true; }
  bool Begin(const ReplayKey& /*key*/) override { return false; }
};

// As other Ops while a model is loaded; after Detach its operations do nothing.
class DetachedOps final : public Ops {
 public:
  explicit DetachedOps(std::unique_ptr<Ops> inner) : inner_(std::move(inner)) {}

  void Detach() { detached_ = true; }

  std::string Describe() const override { return inner_->Describe(); }
  absl::StatusOr<Buffer> Allocate(int64_t bytes) override { return inner_->Allocate(bytes); }
  void Upload(void* to, const void* from, int64_t bytes) override {
    inner_->Upload(to, from, bytes);
  }
  void Clear(void* to, int64_t bytes) override { inner_->Clear(to, bytes); }
  void BeginStep() override { used_ = 0; }
  const void* Stage(const void* from, int64_t bytes) override {
    std::byte* to = staged_.data() + used_;
    used_ += (bytes + 255) / 256 * 256;
    CHECK_LE(used_, staged_.size());
    std::memcpy(to, from, static_cast<size_t>(bytes));
    return to;
  }
  void* Fetch(void* from, int64_t /*bytes*/) override { return from; }
  std::unique_ptr<PackedMatrix> Pack(absl::Span<const Tensor> parts, Precision precision) override {
    return inner_->Pack(parts, precision);
  }
  std::unique_ptr<Replays> MakeReplays() override { return std::make_unique<Kept>(); }
  void Synchronize() override {}
  absl::Status status() const override { return inner_->status(); }

  void Embed(const EmbedParams& p) override { Run(&Ops::Embed, p); }
  void RmsNorm(const RmsNormParams& p) override { Run(&Ops::RmsNorm, p); }
  void SquareSums(const SquareSumsParams& p) override { Run(&Ops::SquareSums, p); }
  void Linear(const LinearParams& p) override { Run(&Ops::Linear, p); }
  void HeadNormRope(const HeadNormRopeParams& p) override { Run(&Ops::HeadNormRope, p); }
  void KvWrite(const KvWriteParams& p) override { Run(&Ops::KvWrite, p); }
  void QkvWrite(const QkvWriteParams& p) override { Run(&Ops::QkvWrite, p); }
  void HeadGate(const HeadGateParams& p) override { Run(&Ops::HeadGate, p); }
  void PagedAttention(const PagedAttentionParams& p) override { Run(&Ops::PagedAttention, p); }
  void MlaAttention(const MlaAttentionParams& p) override { Run(&Ops::MlaAttention, p); }
  void NsaCompress(const NsaCompressParams& p) override { Run(&Ops::NsaCompress, p); }
  void NsaSelect(const NsaSelectParams& p) override { Run(&Ops::NsaSelect, p); }
  void NsaAttention(const NsaAttentionParams& p) override { Run(&Ops::NsaAttention, p); }
  void Swiglu(const SwigluParams& p) override { Run(&Ops::Swiglu, p); }
  void MoeRoute(const MoeRouteParams& p) override { Run(&Ops::MoeRoute, p); }
  void MoeAssign(const MoeAssignParams& p) override { Run(&Ops::MoeAssign, p); }
  void MoeExperts(const MoeExpertsParams& p) override { Run(&Ops::MoeExperts, p); }
  void RowAdd(const RowAddParams& p) override { Run(&Ops::RowAdd, p); }
  void Sample(const SampleParams& p) override { Run(&Ops::Sample, p); }
  void PageCopy(const PageCopyParams& p) override { Run(&Ops::PageCopy, p); }

 private:
  template <class Params>
  void Run(void (Ops::*operation)(const Params&), const Params& params) {
    if (!detached_) (inner_.get()->*operation)(params);
  }

  std::unique_ptr<Ops> inner_;
  bool detached_ = false;
  std::vector<std::byte> staged_ = std::vector<std::byte>(1 << 20);
  size_t used_ = 0;
};

std::unique_ptr<Rank> OpenRank(uint32_t sequences) {
  const char* root = std::getenv("TROUPE_SOURCE_DIR");
  Rank::Config config;
  config.model = absl::StrCat(root == nullptr ? "." : root, "/models/abacus");
  config.threads = 1;
  config.kv_memory_bytes = int64_t{1} << 30;
  config.max_rows = static_cast<int>(sequences);
  config.max_context = kMaxContext;
  if (const char* device = std::getenv("TROUPE_TEST_DEVICE"); device != nullptr) {
    config.device = device;
  } else {
    config.wrap_ops = [](std::unique_ptr<Ops> ops) {
      return std::make_unique<DetachedOps>(std::move(ops));
    };
  }
  auto rank = Rank::Open(config, /*part=*/std::nullopt, nullptr);
  CHECK_OK(rank.status());
  return *std::move(rank);
}

void Grant(v1::StepPlan& plan, const Rank& rank, uint32_t slot, uint32_t block) {
  for (uint32_t group = 0; group < rank.pages->groups().size(); ++group) {
    plan.add_grant_slot(slot);
    plan.add_grant_group(group);
    plan.add_grant_block(block);
    plan.add_grant_page(slot % rank.pages->page_count(static_cast<int>(group)));
  }
}

v1::StepPlan FirstPlan(const Rank& rank, uint32_t sequences) {
  v1::StepPlan plan;
  for (uint32_t slot = 0; slot < sequences; ++slot) {
    v1::NewSequence& sequence = *plan.add_new_sequences();
    sequence.set_slot(slot);
    for (uint32_t i = 0; i < kPromptTokens; ++i) sequence.add_tokens(3);
    sequence.set_prompt_tokens(kPromptTokens);
    sequence.mutable_sampling()->set_temperature(0);
    sequence.mutable_sampling()->set_seed(slot);
    for (uint32_t block = 0; block * kBlockTokens < kPromptTokens; ++block) {
      Grant(plan, rank, slot, block);
    }
  }
  return plan;
}

v1::StepPlan DecodePlan(const Rank& rank, uint32_t sequences, uint32_t start) {
  v1::StepPlan plan;
  for (uint32_t slot = 0; slot < sequences; ++slot) {
    if (start % kBlockTokens == 0) Grant(plan, rank, slot, start / kBlockTokens);
    plan.add_row_slot(slot);
    plan.add_row_start(start);
    plan.add_row_count(1);
  }
  return plan;
}

// Steps of all sequences, from one token behind the prompt to the context's end and anew.
class Decoding {
 public:
  Decoding(Rank* rank, uint32_t sequences)
      : rank_(rank), sequences_(sequences), engine_(rank, &RealClock::Get()) {}

  // Time of the caller's, summed over the steps since the last call of TakeTimes.
  struct Times {
    int64_t prepare_ns = 0;
    int64_t launch_ns = 0;
    int64_t finish_ns = 0;
    int64_t all_ns() const { return prepare_ns + launch_ns + finish_ns; }
  };
  Times TakeTimes() { return std::exchange(times_, {}); }

  // From a plan to the launch of its step, and from its end to its result; the device idle before.
  void Step() {
    if (start_ >= kMaxContext) {
      engine_.Reset();
      CHECK_OK(engine_.Prepare(FirstPlan(*rank_, sequences_)));
      start_ = kPromptTokens - 1;
    }
    const v1::StepPlan plan = DecodePlan(*rank_, sequences_, start_++);
    rank_->ops->Synchronize();
    const int64_t begin_ns = Now();
    CHECK_OK(engine_.Prepare(plan));
    const int64_t prepared_ns = Now();
    const auto launched = engine_.Launch(plan);
    CHECK_OK(launched.status());
    const int64_t launched_ns = Now();
    rank_->ops->Synchronize();
    const int64_t ended_ns = Now();
    v1::StepResult result;
    CHECK_OK(engine_.Finish(*launched, result));
    benchmark::DoNotOptimize(result);
    times_.finish_ns += Now() - ended_ns;
    times_.prepare_ns += prepared_ns - begin_ns;
    times_.launch_ns += launched_ns - prepared_ns;
  }

 private:
  static int64_t Now() { return RealClock::Get().MonotonicNs(); }

  Rank* rank_;
  uint32_t sequences_;
  StepEngine engine_;
  uint32_t start_ = kMaxContext;
  Times times_;
};

void DecodeStep(benchmark::State& state) {
  const auto sequences = static_cast<uint32_t>(state.range(0));
  const std::unique_ptr<Rank> rank = OpenRank(sequences);
  if (auto* detached = dynamic_cast<DetachedOps*>(rank->ops.get())) detached->Detach();
  Decoding decoding(rank.get(), sequences);
  // Every range of contexts has been recorded before what is timed.
  for (uint32_t i = kPromptTokens; i <= kMaxContext; ++i) decoding.Step();
  decoding.TakeTimes();
  Decoding::Times times;
  for (auto unused : state) {
    decoding.Step();
    const Decoding::Times step = decoding.TakeTimes();
    state.SetIterationTime(static_cast<double>(step.all_ns()) * 1e-9);
    times.prepare_ns += step.prepare_ns;
    times.launch_ns += step.launch_ns;
    times.finish_ns += step.finish_ns;
  }
  const auto mean_us = [&](int64_t ns) {
    return benchmark::Counter(static_cast<double>(ns) * 1e-3, benchmark::Counter::kAvgIterations);
  };
  state.counters["prepare_us"] = mean_us(times.prepare_ns);
  state.counters["launch_us"] = mean_us(times.launch_ns);
  state.counters["finish_us"] = mean_us(times.finish_ns);
}
BENCHMARK(DecodeStep)->Arg(1)->Arg(64)->Arg(256)->UseManualTime()->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace troupe
