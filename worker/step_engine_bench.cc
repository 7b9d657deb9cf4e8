// Host time of a decode step: what the worker does for 256 sequences beside what the device does.
// Operations are left out, and a step's section counts as kept (kernels/replays.h), so what a GPU's
// driver takes for a launch and a few copies comes on top.
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
  config.kv_memory_bytes = int64_t{512} << 20;
  config.max_rows = static_cast<int>(sequences);
  config.max_context = kMaxContext;
  config.wrap_ops = [](std::unique_ptr<Ops> ops) {
    return std::make_unique<DetachedOps>(std::move(ops));
  };
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

// From a plan to the launch of its step, and from its end to its result.
void DecodeStep(benchmark::State& state) {
  const auto sequences = static_cast<uint32_t>(state.range(0));
  const std::unique_ptr<Rank> rank = OpenRank(sequences);
  static_cast<DetachedOps&>(*rank->ops).Detach();
  StepEngine engine(rank.get(), &RealClock::Get());
  uint32_t start = kMaxContext;
  for (auto unused : state) {
    state.PauseTiming();
    if (start >= kMaxContext) {
      engine.Reset();
      CHECK_OK(engine.Prepare(FirstPlan(*rank, sequences)));
      start = kPromptTokens - 1;
    }
    const v1::StepPlan plan = DecodePlan(*rank, sequences, start++);
    state.ResumeTiming();
    v1::StepResult result;
    CHECK_OK(engine.Prepare(plan));
    const auto launched = engine.Launch(plan);
    CHECK_OK(launched.status());
    CHECK_OK(engine.Finish(*launched, result));
    benchmark::DoNotOptimize(result);
  }
}
BENCHMARK(DecodeStep)->Arg(1)->Arg(64)->Arg(256)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace troupe
