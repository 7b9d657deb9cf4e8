// Device code of kernels/moe_experts/moe_experts.h but for the products (kernels/linear).
#ifndef TROUPE_KERNELS_MOE_EXPERTS_MOE_EXPERTS_CUH_
#define TROUPE_KERNELS_MOE_EXPERTS_MOE_EXPERTS_CUH_

#include "kernels/cuda/math.cuh"
#include "kernels/moe_experts/moe_experts.h"

namespace troupe {

inline constexpr int kCombineThreads = 256;

struct ExpertSums {
  const float* routed = nullptr;   // [pairs, cols] sorted by expert
  const float* shared = nullptr;   // [T, cols]; null: none
  const int32_t* place = nullptr;  // [T, top_k] sorted row of a pair, or -1
  const float* weights = nullptr;  // [T, top_k]
  int top_k = 0;
  Tensor out;  // [T, cols]
  bool accumulate = true;
};

// Grid: tokens in x, columns in y. A token's experts are added in the order of its choices.
static __global__ void __launch_bounds__(kCombineThreads) CombineExpertsKernel(ExpertSums sums) {
  const int64_t token = blockIdx.x;
  const int64_t col = static_cast<int64_t>(blockIdx.y) * kCombineThreads + threadIdx.x;
  const int64_t cols = sums.out.cols;
  if (col >= cols) return;
  float sum = 0;
  for (int k = 0; k < sums.top_k; ++k) {
    const int64_t pair = token * sums.top_k + k;
    if (sums.place[pair] < 0) continue;
    sum = __fmaf_rn(sums.weights[pair], sums.routed[sums.place[pair] * cols + col], sum);
  }
  if (sums.shared != nullptr) sum += sums.shared[token * cols + col];
  float* out = static_cast<float*>(sums.out.data) + token * sums.out.stride + col;
  *out = sums.accumulate ? *out + sum : sum;
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_EXPERTS_MOE_EXPERTS_CUH_
