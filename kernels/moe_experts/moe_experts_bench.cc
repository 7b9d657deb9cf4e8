#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "benchmark/benchmark.h"
#include "kernels/bench_util.h"
#include "kernels/bf16.h"

namespace troupe {
namespace {

const PackedMatrix* AddMatrix(std::vector<std::unique_ptr<PackedMatrix>>& matrices, int64_t outputs,
                              int64_t inputs) {
  std::minstd_rand engine(1);
  std::vector<Bf16> values(outputs * inputs);
  for (Bf16& value : values) {
    value =
        ToBf16(static_cast<float>(engine()) / static_cast<float>(std::minstd_rand::max()) - 0.5f);
  }
  matrices.push_back(BenchOps().Pack({Tensor{values.data(), DType::kBf16, outputs, inputs, inputs}},
                                     Precision::kBf16));
  return matrices.back().get();
}

// Arguments: hidden size, an expert's size, experts, chosen a token, tokens.
void BM_MoeExperts(benchmark::State& state) {
  const int64_t hidden = state.range(0);
  const int64_t inner = state.range(1);
  const int experts = static_cast<int>(state.range(2));
  const int top_k = static_cast<int>(state.range(3));
  const int64_t tokens = state.range(4);
  std::vector<std::unique_ptr<PackedMatrix>> matrices;
  std::vector<ExpertWeights> weights;
  for (int e = 0; e <= experts; ++e) {
    weights.push_back(
        ExpertWeights{AddMatrix(matrices, 2 * inner, hidden), AddMatrix(matrices, hidden, inner)});
  }
  const auto list = BenchOps().ListExperts(absl::MakeConstSpan(weights).first(experts));
  std::vector<float> x(tokens * hidden, 0.5f);
  std::vector<float> out(tokens * hidden);
  std::vector<int32_t> chosen;
  std::vector<bool> used(experts, false);
  std::mt19937 engine(3);
  for (int64_t t = 0; t < tokens; ++t) {
    const int first = static_cast<int>(engine() % static_cast<uint32_t>(experts));
    for (int k = 0; k < top_k; ++k) {
      chosen.push_back((first + k) % experts);
      used[chosen.back()] = true;
    }
  }
  std::vector<float> scales(tokens * top_k, 0.01f);
  const int64_t used_experts = 1 + std::count(used.begin(), used.end(), true);
  for (auto _ : state) {
    BenchOps().MoeExperts(
        MoeExpertsParams{.x = Tensor{x.data(), DType::kF32, tokens, hidden, hidden},
                         .experts = list.get(),
                         .shared = &weights[experts],
                         .top_k = top_k,
                         .chosen = chosen.data(),
                         .weights = scales.data(),
                         .out = Tensor{out.data(), DType::kF32, tokens, hidden, hidden}});
  }
  const int64_t expert_bytes = matrices[0]->bytes() + matrices[1]->bytes();
  const int64_t bytes = used_experts * expert_bytes + 2 * tokens * hidden * 4;
  Report(state, BenchWork{.bytes = bytes,
                          .working_set_bytes = bytes,
                          .flops = 2 * tokens * (top_k + 1) * 3 * hidden * inner,
                          .precision = Precision::kBf16});
}

void Shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"hidden", "inner", "experts", "top_k", "tokens"});
  bench->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (int64_t tokens : {1, 8, 32, 512}) {
    bench->Args({256, 64, 16, 2, tokens});
    bench->Args({2048, 768, 16, 4, tokens});
  }
}

BENCHMARK(BM_MoeExperts)->Apply(Shapes);

}  // namespace
}  // namespace troupe
