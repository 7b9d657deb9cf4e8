#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "benchmark/benchmark.h"
#include "kernels/bench_util.h"
#include "kernels/bf16.h"
#include "kernels/linear/coded_testing.h"

namespace troupe {
namespace {

constexpr int64_t kColdBytes = int64_t{256} << 20;

// Outputs and inputs of one layer's matrices in Qwen3-0.6B.
constexpr int64_t kQwen3Hidden = 1024;
constexpr std::pair<int64_t, int64_t> kQwen3Layer[] = {
    {4096, kQwen3Hidden}, {kQwen3Hidden, 2048}, {2 * 3072, kQwen3Hidden}, {kQwen3Hidden, 3072}};

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

std::unique_ptr<PackedMatrix> RandomCodedMatrix(int64_t outputs, int64_t inputs,
                                                const CodedFormat& format, Precision precision) {
  const RandomCodes codes(format, outputs, inputs, 1, 0.5F);
  return BenchOps().PackCoded({codes.view()}, precision);
}

using MakeMatrix = std::function<std::unique_ptr<PackedMatrix>(int64_t outputs, int64_t inputs)>;

// Arguments: outputs, inputs, tokens, cold. Cold: through so many matrices that no cache holds
// them.
void MeasureLinear(benchmark::State& state, Precision precision, const MakeMatrix& make) {
  const int64_t outputs = state.range(0);
  const int64_t inputs = state.range(1);
  const int64_t tokens = state.range(2);
  std::vector<std::unique_ptr<PackedMatrix>> matrices;
  int64_t weight_bytes = 0;
  do {
    matrices.push_back(make(outputs, inputs));
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
  bench->Args({4096, 4096, 4096, 0});
  for (const auto& [outputs, inputs] : kQwen3Layer) bench->Args({outputs, inputs, 512, 0});
  for (int64_t tokens : {1, 8}) {
    bench->Args({4096, 4096, tokens, 1});
    bench->Args({512, 256, tokens, 1});
  }
}

// One token's walk through all matrices of a model of Qwen3-0.6B's shape: 28 layers, and the head.
// No cache holds them. tokens/s is an upper bound: attention and the rest come on top.
void MeasureDecode(benchmark::State& state, Precision precision, const MakeMatrix& make) {
  constexpr int kLayers = 28;
  std::vector<std::unique_ptr<PackedMatrix>> matrices;
  for (int i = 0; i < kLayers; ++i) {
    for (const auto& [outputs, inputs] : kQwen3Layer) matrices.push_back(make(outputs, inputs));
  }
  matrices.push_back(make(151936, kQwen3Hidden));
  int64_t bytes = 0;
  int64_t elements = 0;
  int64_t widest = 0;
  for (const auto& matrix : matrices) {
    bytes += matrix->bytes();
    elements += matrix->outputs() * matrix->inputs();
    widest = std::max(widest, matrix->outputs());
  }
  std::vector<float> x(4096, 0.5f);
  std::vector<float> out(widest);
  for (auto _ : state) {
    for (const auto& w : matrices) {
      BenchOps().Linear({.x = Tensor{x.data(), DType::kF32, 1, w->inputs(), w->inputs()},
                         .w = w.get(),
                         .out = Tensor{out.data(), DType::kF32, 1, w->outputs(), w->outputs()}});
    }
  }
  Report(state, BenchWork{.bytes = bytes,
                          .working_set_bytes = bytes,
                          .flops = 2 * elements,
                          .precision = precision});
  state.counters["tokens/s"] =
      benchmark::Counter(static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

void BM_Linear(benchmark::State& state, DType dtype, Precision precision) {
  MeasureLinear(state, precision, [&](int64_t outputs, int64_t inputs) {
    return RandomMatrix(outputs, inputs, dtype, precision);
  });
}

void BM_LinearCoded(benchmark::State& state, const CodedFormat& format, Precision precision) {
  MeasureLinear(state, precision, [&](int64_t outputs, int64_t inputs) {
    return RandomCodedMatrix(outputs, inputs, format, precision);
  });
}

void BM_Decode(benchmark::State& state, DType dtype, Precision precision) {
  MeasureDecode(state, precision, [&](int64_t outputs, int64_t inputs) {
    return RandomMatrix(outputs, inputs, dtype, precision);
  });
}

void BM_DecodeCoded(benchmark::State& state, const CodedFormat& format, Precision precision) {
  MeasureDecode(state, precision, [&](int64_t outputs, int64_t inputs) {
    return RandomCodedMatrix(outputs, inputs, format, precision);
  });
}

CodedFormat IntegersOf(int bits, int64_t group) {
  return {.code = bits == 8 ? CodeFormat::kInt8 : CodeFormat::kInt4, .group = group};
}

BENCHMARK_CAPTURE(BM_Linear, bf16, DType::kBf16, Precision::kBf16)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Linear, bf16_f32_products, DType::kBf16, Precision::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Linear, f32, DType::kF32, Precision::kF32)->Apply(Shapes);

const CodedFormat kFp8 = {.code = CodeFormat::kFp8E4M3, .group = 128, .scale = ScaleFormat::kF32};
const CodedFormat kMxfp4 = {.code = CodeFormat::kFp4E2M1, .group = 32, .scale = ScaleFormat::kE8M0};
const CodedFormat kGptq = {
    .code = CodeFormat::kInt4, .group = 128, .scale = ScaleFormat::kF16, .zeros = true};

BENCHMARK_CAPTURE(BM_LinearCoded, int8, IntegersOf(8, 128), Precision::kBf16)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_LinearCoded, int4_g64, IntegersOf(4, 64), Precision::kBf16)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_LinearCoded, w8a8, IntegersOf(8, 128), Precision::kInt8Groups)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_LinearCoded, w4a8_g64, IntegersOf(4, 64), Precision::kInt8Groups)
    ->Apply(Shapes);
BENCHMARK_CAPTURE(BM_LinearCoded, fp8, kFp8, Precision::kBf16)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_LinearCoded, mxfp4, kMxfp4, Precision::kBf16)->Apply(Shapes);

void OneModel(benchmark::internal::Benchmark* bench) {
  bench->UseRealTime()->Unit(benchmark::kMillisecond);
}
BENCHMARK_CAPTURE(BM_Decode, f32, DType::kF32, Precision::kF32)->Apply(OneModel);
BENCHMARK_CAPTURE(BM_Decode, bf16, DType::kBf16, Precision::kBf16)->Apply(OneModel);
BENCHMARK_CAPTURE(BM_DecodeCoded, fp8, kFp8, Precision::kBf16)->Apply(OneModel);
BENCHMARK_CAPTURE(BM_DecodeCoded, int8, IntegersOf(8, 128), Precision::kBf16)->Apply(OneModel);
BENCHMARK_CAPTURE(BM_DecodeCoded, w8a8, IntegersOf(8, 128), Precision::kInt8Groups)
    ->Apply(OneModel);
BENCHMARK_CAPTURE(BM_DecodeCoded, w4a8_g64, IntegersOf(4, 64), Precision::kInt8Groups)
    ->Apply(OneModel);
BENCHMARK_CAPTURE(BM_DecodeCoded, int4_g32, IntegersOf(4, 32), Precision::kBf16)->Apply(OneModel);
BENCHMARK_CAPTURE(BM_DecodeCoded, int4_g64, IntegersOf(4, 64), Precision::kBf16)->Apply(OneModel);
BENCHMARK_CAPTURE(BM_DecodeCoded, int4_g128, IntegersOf(4, 128), Precision::kBf16)->Apply(OneModel);
BENCHMARK_CAPTURE(BM_DecodeCoded, int4_g128_zeros, kGptq, Precision::kBf16)->Apply(OneModel);
BENCHMARK_CAPTURE(BM_DecodeCoded, mxfp4, kMxfp4, Precision::kBf16)->Apply(OneModel);

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
