#include <cmath>
#include <cstddef>
#include <memory>
#include <random>
#include <vector>

#include "benchmark/benchmark.h"
#include "kernels/bench_util.h"
#include "kernels/bf16.h"

namespace troupe {
namespace {

constexpr int64_t kColdBytes = int64_t{256} << 20;

std::unique_ptr<PackedMatrix> RandomMatrix(int64_t outputs, int64_t inputs, DType dtype,
                                           Precision precision) {
  std::minstd_rand engine(1);
  std::vector<float> f32(outputs * inputs);
  std::vector<Bf16> bf16(outputs * inputs);
  for (size_t i = 0; i < f32.size(); ++i) {
    f32[i] = static_cast<float>(engine()) / static_cast<float>(std::minstd_rand::max()) - 0.5f;
    bf16[i] = ToBf16(f32[i]);
  }
  void* data = dtype == DType::kF32 ? static_cast<void*>(f32.data()) : bf16.data();
  return BenchOps().Pack({Tensor{data, dtype, outputs, inputs, inputs}}, precision);
}

// Arguments: outputs, inputs, tokens, cold. Cold: through so many matrices that no cache holds
// them.
void BM_Linear(benchmark::State& state, DType dtype, Precision precision) {
  const int64_t outputs = state.range(0);
  const int64_t inputs = state.range(1);
  const int64_t tokens = state.range(2);
  std::vector<std::unique_ptr<PackedMatrix>> matrices;
  int64_t weight_bytes = 0;
  do {
    matrices.push_back(RandomMatrix(outputs, inputs, dtype, precision));
    weight_bytes += matrices.back()->bytes();
  } while (state.range(3) != 0 && weight_bytes < kColdBytes);
  std::vector<float> x(tokens * inputs, 0.5f);
  std::vector<float> out(tokens * outputs);
  LinearParams params;
  params.x = Tensor{x.data(), DType::kF32, tokens, inputs, inputs};
  params.out = Tensor{out.data(), DType::kF32, tokens, outputs, outputs};
  size_t next = 0;
  for (auto _ : state) {
    params.w = matrices[next].get();
    next = (next + 1) % matrices.size();
    BenchOps().Linear(params);
  }
  const int64_t activation_bytes = tokens * (inputs + outputs) * 4;
  Report(state, BenchWork{.bytes = matrices[0]->bytes() + activation_bytes,
                          .working_set_bytes = weight_bytes + activation_bytes,
                          .flops = 2 * tokens * inputs * outputs,
                          .precision = precision});
}

void Shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"out", "in", "tokens", "cold"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  const std::vector<std::pair<int64_t, int64_t>> shapes = {{512, 256}, {256, 512},   {1536, 256},
                                                           {256, 768}, {4096, 4096}, {6144, 2048}};
  for (const auto& [outputs, inputs] : shapes) {
    for (int64_t tokens : {1, 8, 32, 512}) bench->Args({outputs, inputs, tokens, 0});
  }
  for (int64_t tokens : {1, 8}) {
    bench->Args({4096, 4096, tokens, 1});
    bench->Args({512, 256, tokens, 1});
  }
}

BENCHMARK_CAPTURE(BM_Linear, bf16, DType::kBf16, Precision::kBf16)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Linear, bf16_f32_products, DType::kBf16, Precision::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Linear, f32, DType::kF32, Precision::kF32)->Apply(Shapes);

// Packing, which is what loading does with the bytes that it reads. Arguments: outputs, inputs.
void BM_Pack(benchmark::State& state, DType dtype) {
  const int64_t outputs = state.range(0);
  const int64_t inputs = state.range(1);
  const int64_t bytes = outputs * inputs * BytesOf(dtype);
  std::vector<std::byte> stored(bytes);
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        BenchOps().Pack({Tensor{stored.data(), dtype, outputs, inputs, inputs}}, Precision::kBf16));
  }
  Report(state, BenchWork{.bytes = 2 * bytes, .working_set_bytes = 2 * bytes});
}

BENCHMARK_CAPTURE(BM_Pack, bf16, DType::kBf16)
    ->Args({4096, 4096})
    ->Args({1024, 4096})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(BM_Pack, f32, DType::kF32)
    ->Args({4096, 4096})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace troupe
