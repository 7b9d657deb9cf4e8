// Operations that read and write rows once: embed, rms_norm, swiglu, moe_route, page_copy.
#include <numeric>
#include <vector>

#include "benchmark/benchmark.h"
#include "kernels/bench_util.h"

namespace troupe {
namespace {

Tensor View(std::vector<float>& values, int64_t rows, int64_t cols) {
  return Tensor{values.data(), DType::kF32, rows, cols, cols};
}

// Arguments: tokens, columns.
void TokensAndColumns(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"tokens", "cols"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (int64_t tokens : {1, 8, 32, 512}) {
    for (int64_t cols : {256, 4096}) bench->Args({tokens, cols});
  }
}

void BM_Embed(benchmark::State& state) {
  const int64_t tokens = state.range(0);
  const int64_t cols = state.range(1);
  std::vector<float> table(512 * cols, 0.5f);
  std::vector<float> out(tokens * cols);
  std::vector<uint32_t> ids(tokens);
  for (int64_t t = 0; t < tokens; ++t) ids[t] = static_cast<uint32_t>(t * 197 % 512);
  for (auto _ : state) {
    BenchOps().Embed(EmbedParams{ids.data(), View(table, 512, cols), View(out, tokens, cols)});
  }
  Report(state, BenchWork{.bytes = tokens * cols * 8, .working_set_bytes = tokens * cols * 8});
}
BENCHMARK(BM_Embed)->Apply(TokensAndColumns);

void BM_RmsNorm(benchmark::State& state) {
  const int64_t tokens = state.range(0);
  const int64_t cols = state.range(1);
  std::vector<float> x(tokens * cols, 0.5f);
  std::vector<float> weight(cols, 1.5f);
  std::vector<float> out(tokens * cols);
  for (auto _ : state) {
    BenchOps().RmsNorm(RmsNormParams{View(x, tokens, cols), View(weight, 1, cols), 1e-6f,
                                     View(out, tokens, cols)});
  }
  const int64_t bytes = (2 * tokens + 1) * cols * 4;
  Report(state, BenchWork{.bytes = bytes, .working_set_bytes = bytes});
}
BENCHMARK(BM_RmsNorm)->Apply(TokensAndColumns);

void BM_Swiglu(benchmark::State& state) {
  const int64_t tokens = state.range(0);
  const int64_t cols = state.range(1);
  std::vector<float> gate_up(tokens * 2 * cols, 0.5f);
  std::vector<float> out(tokens * cols);
  for (auto _ : state) {
    BenchOps().Swiglu(SwigluParams{View(gate_up, tokens, 2 * cols), View(out, tokens, cols)});
  }
  const int64_t bytes = 3 * tokens * cols * 4;
  Report(state, BenchWork{.bytes = bytes, .working_set_bytes = bytes});
}
BENCHMARK(BM_Swiglu)->Apply(TokensAndColumns);

// Arguments: tokens, experts, chosen.
void BM_MoeRoute(benchmark::State& state) {
  const int64_t tokens = state.range(0);
  const int64_t experts = state.range(1);
  const int top_k = static_cast<int>(state.range(2));
  std::vector<float> logits(tokens * experts);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i * 7919 % 1009) / 500;
  std::vector<float> bias(experts, 0.1f);
  std::vector<int32_t> chosen(tokens * top_k);
  std::vector<float> weights(tokens * top_k);
  std::vector<int32_t> load(experts);
  for (auto _ : state) {
    BenchOps().MoeRoute(MoeRouteParams{.logits = View(logits, tokens, experts),
                                       .bias = bias.data(),
                                       .top_k = top_k,
                                       .experts = chosen.data(),
                                       .weights = weights.data(),
                                       .load = load.data()});
  }
  const int64_t bytes = tokens * (experts + 2 * top_k) * 4;
  Report(state, BenchWork{.bytes = bytes, .working_set_bytes = bytes});
}
BENCHMARK(BM_MoeRoute)
    ->ArgNames({"tokens", "experts", "top_k"})
    ->ArgsProduct({{1, 32, 512}, {16}, {2}})
    ->ArgsProduct({{1, 32, 512}, {256}, {8}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

// Arguments: pages, bytes a page.
void BM_PageCopy(benchmark::State& state) {
  const int64_t count = state.range(0);
  const int64_t page_bytes = state.range(1);
  const auto pages = BenchOps().Allocate(2 * count * page_bytes);
  std::vector<uint32_t> from(count);
  std::vector<uint32_t> to(count);
  std::iota(from.begin(), from.end(), 0);
  std::iota(to.begin(), to.end(), static_cast<uint32_t>(count));
  for (auto _ : state) {
    BenchOps().PageCopy(
        PageCopyParams{pages->get(), page_bytes, static_cast<int>(count), from.data(), to.data()});
  }
  const int64_t bytes = 2 * count * page_bytes;
  Report(state, BenchWork{.bytes = bytes, .working_set_bytes = bytes});
}
BENCHMARK(BM_PageCopy)
    ->ArgNames({"pages", "page_bytes"})
    ->ArgsProduct({{1, 16, 256}, {64 * 1024, 512 * 1024}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace troupe
