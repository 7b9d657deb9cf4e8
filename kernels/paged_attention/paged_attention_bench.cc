// Attention at Abacus' sizes (8 query heads, 2 KV heads of 64), whole context and 256-token window.
#include <algorithm>
#include <vector>

#include "benchmark/benchmark.h"
#include "kernels/attention_bench_util.h"
#include "kernels/bench_util.h"

namespace troupe {
namespace {

constexpr int kHeads = 8;
constexpr int kHeadDim = 64;

struct Setting {
  int rows;
  int start;
  int count;
  int window = 0;
  int open_heads = kHeads;  // of each token; the same share of every group
  DType dtype = DType::kBf16;
};

void RunAttention(benchmark::State& state, const Setting& setting) {
  Ops& ops = BenchOps();
  BenchBatch batch(setting.rows, setting.start, setting.count);
  const BenchPages pages(ops, setting.rows, setting.start + setting.count,
                         {.dtype = setting.dtype});
  const int64_t tokens = batch.view().tokens;
  std::vector<float> q = BenchVector(tokens * kHeads * kHeadDim);
  std::vector<float> out(q.size());
  std::vector<float> factors(tokens * kHeads, 0.0F);
  const int group_heads = kHeads / pages.k().kv_heads;
  for (size_t i = 0; i < factors.size(); ++i) {
    if (static_cast<int>(i % group_heads) < setting.open_heads / pages.k().kv_heads) factors[i] = 1;
  }
  const PagedAttentionParams params = {
      .batch = batch.view(),
      .heads = kHeads,
      .window = setting.window,
      .scale = 0.125F,
      .q = {q.data(), DType::kF32, tokens, kHeads * kHeadDim, kHeads * kHeadDim},
      .k = pages.k(),
      .v = pages.v(),
      .tables = pages.tables(),
      .mix = {.factor = factors.data(), .token_stride = kHeads, .head_stride = 1},
      .out = {out.data(), DType::kF32, tokens, kHeads * kHeadDim, kHeads * kHeadDim}};
  for (auto _ : state) ops.PagedAttention(params);

  int64_t seen = 0;     // entries, summed over the queries
  int64_t touched = 0;  // entries, each once
  for (int row = 0; row < setting.rows; ++row) {
    int64_t oldest = setting.window == 0 ? 0 : batch.view().start[row] - setting.window + 1;
    oldest = std::max<int64_t>(oldest, 0);
    touched += batch.view().start[row] + setting.count - oldest;
  }
  for (int64_t token = 0; token < tokens; ++token) {
    const int64_t visible = batch.view().position[token] + 1;
    seen += setting.window == 0 ? visible : std::min<int64_t>(visible, setting.window);
  }
  Report(state, {.bytes = touched * pages.entry_bytes() + 2 * tokens * kHeads * kHeadDim * 4,
                 .working_set_bytes = touched * pages.entry_bytes(),
                 .flops = 4 * seen * setting.open_heads * kHeadDim});
}

void BM_Decode(benchmark::State& state, DType dtype) {
  RunAttention(state, {.rows = static_cast<int>(state.range(0)),
                       .start = static_cast<int>(state.range(1)) - 1,
                       .count = 1,
                       .window = static_cast<int>(state.range(2)),
                       .dtype = dtype});
}

void BM_DecodeOpenHeads(benchmark::State& state) {
  RunAttention(
      state,
      {.rows = 8, .start = 1023, .count = 1, .open_heads = static_cast<int>(state.range(0))});
}

void BM_Prefill(benchmark::State& state) {
  RunAttention(state, {.rows = 1,
                       .start = 0,
                       .count = static_cast<int>(state.range(0)),
                       .window = static_cast<int>(state.range(1))});
}

void DecodeShapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"batch", "context", "window"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (const int batch : {1, 8, 32}) {
    for (const int context : {1024, 4096, 16384, 65536}) bench->Args({batch, context, 0});
    bench->Args({batch, 65536, 256});
  }
}

BENCHMARK_CAPTURE(BM_Decode, bf16, DType::kBf16)->Apply(DecodeShapes);
BENCHMARK_CAPTURE(BM_Decode, f32, DType::kF32)
    ->ArgNames({"batch", "context", "window"})
    ->Args({8, 16384, 0})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK(BM_DecodeOpenHeads)
    ->ArgName("open_heads")
    ->DenseRange(0, kHeads, 2)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK(BM_Prefill)
    ->ArgNames({"tokens", "window"})
    ->ArgsProduct({{1024, 4096, 16384}, {0, 256}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace troupe
