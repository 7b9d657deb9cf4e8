// Device code of kernels/moe_experts/moe_experts.h but for the products (kernels/linear).
#ifndef TROUPE_KERNELS_MOE_EXPERTS_MOE_EXPERTS_CUH_
#define TROUPE_KERNELS_MOE_EXPERTS_MOE_EXPERTS_CUH_

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/math.cuh"
#include "kernels/moe_experts/moe_experts.h"

namespace troupe {

inline constexpr int kCombineThreads = 256;

struct ExpertSums {
  const void* routed = nullptr;    // [pairs, cols] sorted by expert: f32 or bf16
  const float* shared = nullptr;   // [T, cols]; null: none
  const int32_t* place = nullptr;  // [T, top_k] sorted row of a pair, or -1
  const float* weights = nullptr;  // [T, top_k]
  int top_k = 0;
  Tensor out;  // [T, cols]
  bool accumulate = true;
};

// kUnit columns from `col` on; Element: of what is summed.
template <class Element, int kUnit>
__device__ __forceinline__ void CombineColumns(const ExpertSums& sums, int64_t token, int64_t col) {
  const int64_t cols = sums.out.cols;
  float total[kUnit] = {};
  constexpr int kAtOnce = 4;  // that are loaded together
  for (int first = 0; first < sums.top_k; first += kAtOnce) {
    float values[kAtOnce][kUnit] = {};
    int64_t places[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      places[i] = first + i < sums.top_k ? sums.place[token * sums.top_k + first + i] : -1;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (places[i] < 0) continue;
      LoadElements<kUnit>(static_cast<const Element*>(sums.routed) + places[i] * cols + col,
                          values[i]);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (places[i] < 0) continue;
      const float weight = sums.weights[token * sums.top_k + first + i];
#pragma unroll
      for (int u = 0; u < kUnit; ++u) total[u] = __fmaf_rn(weight, values[i][u], total[u]);
    }
  }
  float* out = static_cast<float*>(sums.out.data) + token * sums.out.stride + col;
#pragma unroll
  for (int u = 0; u < kUnit; ++u) {
    if (sums.shared != nullptr) total[u] += sums.shared[token * cols + col + u];
    out[u] = sums.accumulate ? out[u] + total[u] : total[u];
  }
}

// Grid: tokens in x, groups of kUnit * kCombineThreads columns in y; columns are a multiple of
// kUnit, and rows begin at multiples of as many floats. A token's experts are added in the order of
// its choices.
template <class Element, int kUnit>
__global__ void __launch_bounds__(kCombineThreads) CombineExpertsKernel(ExpertSums sums) {
  LetNextKernelBegin();
  WaitForEarlierKernels();
  const int64_t col = (static_cast<int64_t>(blockIdx.y) * kCombineThreads + threadIdx.x) * kUnit;
  if (col < sums.out.cols) CombineColumns<Element, kUnit>(sums, blockIdx.x, col);
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_EXPERTS_MOE_EXPERTS_CUH_
