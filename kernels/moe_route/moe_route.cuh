// Device code of kernels/moe_route/moe_route.h: one warp a token.
#ifndef TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_CUH_
#define TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_CUH_

#include "kernels/cuda/math.cuh"
#include "kernels/moe_route/moe_route.h"

namespace troupe {

struct RankedExpert {
  float value;
  int expert;
};

// Ties go to the lower index, in whatever order lanes are compared.
__device__ __forceinline__ bool IsBetter(const RankedExpert& a, const RankedExpert& b) {
  return a.value > b.value || (a.value == b.value && a.expert < b.expert);
}

__device__ __forceinline__ RankedExpert WarpBest(RankedExpert best) {
#pragma unroll
  for (int lane = kWarpSize / 2; lane > 0; lane /= 2) {
    const RankedExpert other = {__shfl_xor_sync(kAllLanes, best.value, lane),
                                __shfl_xor_sync(kAllLanes, best.expert, lane)};
    if (IsBetter(other, best)) best = other;
  }
  return best;
}

// One warp a block. Dynamic shared memory: two numbers an expert.
inline __global__ void __launch_bounds__(kWarpSize) MoeRouteKernel(MoeRouteParams params) {
  extern __shared__ float shared[];
  const int experts = static_cast<int>(params.logits.cols);
  const int lane = static_cast<int>(threadIdx.x);
  float* scores = shared;
  float* ranks = shared + experts;  // -inf once chosen
  const int64_t token = blockIdx.x;
  const float* logits =
      static_cast<const float*>(params.logits.data) + token * params.logits.stride;
  for (int e = lane; e < experts; e += kWarpSize) {
    scores[e] = Sigmoid(logits[e]);
    ranks[e] = scores[e] + params.bias[e];
  }
  __syncwarp();
  int32_t* chosen = params.experts + token * params.top_k;
  float* weights = params.weights + token * params.top_k;
  float sum = 0;
  for (int k = 0; k < params.top_k; ++k) {
    RankedExpert best = {-INFINITY, experts};
    for (int e = lane; e < experts; e += kWarpSize) {
      const RankedExpert candidate = {ranks[e], e};
      if (IsBetter(candidate, best)) best = candidate;
    }
    best = WarpBest(best);
    if (best.expert == experts) best.expert = k;  // nothing but NaN is left: any will do
    const float score = scores[best.expert];
    sum = __fadd_rn(sum, score);
    if (lane == 0) {
      ranks[best.expert] = -INFINITY;
      chosen[k] = best.expert;
      weights[k] = score;
      if (params.load != nullptr) atomicAdd(params.load + best.expert, 1);
    }
    __syncwarp();
  }
  if (lane != 0) return;
  for (int k = 0; k < params.top_k; ++k) {
    weights[k] = (params.normalize ? weights[k] / (sum + 1e-20F) : weights[k]) * params.scale;
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_CUH_
