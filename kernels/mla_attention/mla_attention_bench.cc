// Multi-head latent attention at DeepSeek-V2-Lite's sizes: each form at the same work, and what the
// operation chooses. Where the two forms cross is what ChooseMlaForm has to know.
#include <memory>
#include <optional>
#include <vector>

#include "benchmark/benchmark.h"
#include "kernels/attention_bench_util.h"
#include "kernels/bench_util.h"
#include "kernels/bf16.h"

namespace troupe {
namespace {

constexpr MlaDims kDims = {
    .heads = 16, .nope_dim = 128, .rope_dim = 64, .value_dim = 128, .latent_dim = 512};

struct Format {
  DType dtype;  // of weights and latents
  Precision precision;
};
constexpr Format kBf16 = {DType::kBf16, Precision::kBf16};
constexpr Format kF32 = {DType::kF32, Precision::kF32};

class BenchWeights {
 public:
  explicit BenchWeights(const Format& format) {
    for (int head = 0; head < kDims.heads; ++head) {
      weights_.push_back({.key_up = Matrix(kDims.nope_dim, kDims.latent_dim, format),
                          .key_down = Matrix(kDims.latent_dim, kDims.nope_dim, format),
                          .value_up = Matrix(kDims.value_dim, kDims.latent_dim, format)});
    }
  }

  const MlaHeadWeights* data() const { return weights_.data(); }
  // That either form reads.
  int64_t bytes() const {
    return kDims.heads * (weights_[0].key_up->bytes() + weights_[0].value_up->bytes());
  }

 private:
  const PackedMatrix* Matrix(int64_t rows, int64_t cols, const Format& format) {
    std::vector<float> values = BenchVector(rows * cols);
    std::vector<Bf16> rounded;
    for (const float value : values) rounded.push_back(ToBf16(value));
    void* data = format.dtype == DType::kF32 ? static_cast<void*>(values.data()) : rounded.data();
    owned_.push_back(
        BenchOps().Pack({Tensor{data, format.dtype, rows, cols, cols}}, format.precision));
    return owned_.back().get();
  }

  std::vector<std::unique_ptr<PackedMatrix>> owned_;
  std::vector<MlaHeadWeights> weights_;
};

// Arguments: sequences, new tokens of each, context of each with them. Without a form the operation
// chooses.
void BM_Mla(benchmark::State& state, std::optional<MlaForm> form, const Format& format) {
  const int rows = static_cast<int>(state.range(0));
  const int count = static_cast<int>(state.range(1));
  const int context = static_cast<int>(state.range(2));
  Ops& ops = BenchOps();
  const BenchBatch batch(rows, context - count, count);
  const int entry = kDims.latent_dim + kDims.rope_dim;
  const BenchPages pages(ops, rows, context,
                         {.kv_heads = 1, .head_dim = entry, .dtype = format.dtype});
  const BenchWeights weights(format);
  const int64_t tokens = batch.view().tokens;
  const int64_t q_cols = int64_t{kDims.heads} * (kDims.nope_dim + kDims.rope_dim);
  const int64_t out_cols = int64_t{kDims.heads} * kDims.value_dim;
  std::vector<float> q = BenchVector(tokens * q_cols);
  std::vector<float> out(tokens * out_cols);
  const std::vector<MlaForm> forms(rows, form.value_or(MlaForm::kAbsorbed));
  const MlaAttentionParams params = {.batch = batch.view(),
                                     .dims = kDims,
                                     .scale = 0.07F,
                                     .q = {q.data(), DType::kF32, tokens, q_cols, q_cols},
                                     .latent = pages.k(),
                                     .tables = pages.tables(),
                                     .weights = weights.data(),
                                     .form = form.has_value() ? forms.data() : nullptr,
                                     .out = {out.data(), DType::kF32, tokens, out_cols, out_cols}};
  for (auto _ : state) ops.MlaAttention(params);

  const int64_t cached = int64_t{rows} * context * entry * BytesOf(format.dtype);
  // Of a form that was chosen, only the time is of interest.
  const MlaWork work = form.has_value() ? CountMlaWork(*form, count, context, kDims) : MlaWork();
  Report(state, {.bytes = cached + weights.bytes() + tokens * (q_cols + out_cols) * 4,
                 .working_set_bytes = cached + weights.bytes(),
                 .flops = static_cast<int64_t>(work.matrix_flops + work.pair_flops) * rows,
                 .precision = format.precision});
}

void Crossing(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"rows", "tokens", "context"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (const int context : {64, 512, 2048, 8192}) {
    for (const int tokens : {1, 4, 16, 48, 96, 144, 192, 256, 512}) {
      if (tokens <= context) bench->Args({1, tokens, context});
    }
  }
}

void Decode(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"rows", "tokens", "context"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (const int context : {1024, 8192, 32768}) bench->Args({8, 1, context});
}

BENCHMARK_CAPTURE(BM_Mla, bf16_absorbed, MlaForm::kAbsorbed, kBf16)->Apply(Crossing);
BENCHMARK_CAPTURE(BM_Mla, bf16_expanded, MlaForm::kExpanded, kBf16)->Apply(Crossing);
BENCHMARK_CAPTURE(BM_Mla, bf16_chosen, std::nullopt, kBf16)->Apply(Crossing);
BENCHMARK_CAPTURE(BM_Mla, f32_absorbed, MlaForm::kAbsorbed, kF32)->Apply(Crossing);
BENCHMARK_CAPTURE(BM_Mla, f32_expanded, MlaForm::kExpanded, kF32)->Apply(Crossing);
BENCHMARK_CAPTURE(BM_Mla, f32_chosen, std::nullopt, kF32)->Apply(Crossing);
BENCHMARK_CAPTURE(BM_Mla, decode_bf16, MlaForm::kAbsorbed, kBf16)->Apply(Decode);
BENCHMARK_CAPTURE(BM_Mla, decode_f32, MlaForm::kAbsorbed, kF32)->Apply(Decode);

}  // namespace
}  // namespace troupe
