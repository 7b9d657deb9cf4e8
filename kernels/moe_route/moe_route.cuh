// Device code of kernels/moe_route/moe_route.h: one warp a token.
//
// Invariant: sums run in an order that the number of experts alone decides.
#ifndef TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_CUH_
#define TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_CUH_

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/math.cuh"
#include "kernels/moe_route/moe_route.h"

namespace troupe {

struct Ranked {
  float value;
  int index;
};

// Ties go to the lower index, in whatever order lanes are compared.
__device__ __forceinline__ bool IsBetter(const Ranked& a, const Ranked& b) {
  return a.value > b.value || (a.value == b.value && a.index < b.index);
}

// The best of `count` values; every lane gets it. Some index under `count` even where all are NaN.
__device__ __forceinline__ Ranked WarpBest(const float* values, int count) {
  Ranked best = {-INFINITY, count - 1};
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kWarpSize) {
    const Ranked candidate = {values[i], i};
    if (IsBetter(candidate, best)) best = candidate;
  }
#pragma unroll
  for (int lane = kWarpSize / 2; lane > 0; lane /= 2) {
    const Ranked other = {__shfl_xor_sync(kAllLanes, best.value, lane),
                          __shfl_xor_sync(kAllLanes, best.index, lane)};
    if (IsBetter(other, best)) best = other;
  }
  return best;
}

// s of every expert, in shared memory.
__device__ __forceinline__ void ScoreExperts(RouterScoring scoring, const float* logits,
                                             int experts, float* scores) {
  const int lane = static_cast<int>(threadIdx.x);
  if (scoring == RouterScoring::kSigmoid) {
    for (int e = lane; e < experts; e += kWarpSize) scores[e] = Sigmoid(logits[e]);
    return;
  }
  float largest = -INFINITY;
  for (int e = lane; e < experts; e += kWarpSize) largest = fmaxf(largest, logits[e]);
  largest = WarpMax(largest);
  float sum = 0;
  for (int e = lane; e < experts; e += kWarpSize) {
    scores[e] = expf(logits[e] - largest);
    sum += scores[e];
  }
  sum = WarpSum(sum);
  for (int e = lane; e < experts; e += kWarpSize) scores[e] = __fdiv_rn(scores[e], sum);
}

// Leaves no chance to experts outside of the chosen groups. `group_scores` has room for every
// group.
__device__ __forceinline__ void LimitToGroups(const MoeRouteParams& params, int experts, float* c,
                                              float* group_scores) {
  const int lane = static_cast<int>(threadIdx.x);
  const int size = experts / params.groups;
  for (int g = lane; g < params.groups; g += kWarpSize) {
    float best = -INFINITY;
    float second = -INFINITY;
    for (int e = g * size; e < (g + 1) * size; ++e) {
      second = fmaxf(second, fminf(best, c[e]));
      best = fmaxf(best, c[e]);
    }
    const bool two = params.group_score == GroupScore::kTopTwoSum && size > 1;
    group_scores[g] = two ? best + second : best;
  }
  __syncwarp();
  // Chosen groups become NaN, which no later comparison takes for the best.
  for (int i = 0; i < params.groups_chosen; ++i) {
    const Ranked best = WarpBest(group_scores, params.groups);
    __syncwarp();
    if (lane == 0) group_scores[best.index] = NAN;
    __syncwarp();
  }
  for (int e = lane; e < experts; e += kWarpSize) {
    if (!isnan(group_scores[e / size])) c[e] = -INFINITY;
  }
  __syncwarp();
}

// Numbers in the order of unsigned ones; above 0, which stands for none. NaN becomes 0 too.
__device__ __forceinline__ uint32_t RankKey(float value) {
  if (isnan(value)) return 0;
  const uint32_t bits = __float_as_uint(value + 0.0F);  // of both zeros the same
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

// One lane's best of every 32nd expert: ties go to the lower index.
struct LaneBest {
  uint32_t key;
  int index;
};
__device__ __forceinline__ LaneBest FindLaneBest(const uint32_t* keys, int experts) {
  LaneBest best = {0, experts - 1};
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += kWarpSize) {
    if (keys[e] > best.key) best = {keys[e], e};
  }
  return best;
}

// By the first warp of a block. `shared`: two numbers an expert and one a group.
__device__ __forceinline__ void RouteToken(const MoeRouteParams& params, int64_t token,
                                           float* shared) {
  const auto experts = static_cast<int>(params.logits.cols);
  const int lane = static_cast<int>(threadIdx.x);
  float* scores = shared;
  float* ranks = shared + experts;
  const float* logits =
      static_cast<const float*>(params.logits.data) + token * params.logits.stride;
  ScoreExperts(params.scoring, logits, experts, scores);
  for (int e = lane; e < experts; e += kWarpSize) {
    ranks[e] = params.bias == nullptr ? scores[e] : scores[e] + params.bias[e];
  }
  __syncwarp();
  if (params.group_score != GroupScore::kNone) {
    LimitToGroups(params, experts, ranks, ranks + experts);
  }
  auto* keys = reinterpret_cast<uint32_t*>(ranks);  // 0 once chosen
  for (int e = lane; e < experts; e += kWarpSize) keys[e] = RankKey(ranks[e]);
  LaneBest best = FindLaneBest(keys, experts);
  int32_t* chosen = params.experts + token * params.top_k;
  float* weights = params.weights + token * params.top_k;
  float sum = 0;
  int own = 0;  // of the first choices, this lane's
  for (int k = 0; k < params.top_k; ++k) {
    const uint32_t key = __reduce_max_sync(kAllLanes, best.key);
    const int index = static_cast<int>(__reduce_min_sync(
        kAllLanes, best.key == key ? static_cast<unsigned>(best.index) : 0xffffffffU));
    sum = __fadd_rn(sum, scores[index]);
    if (lane == k % kWarpSize) {
      chosen[k] = index;
      if (k < kWarpSize) own = index;
      if (k >= kWarpSize) weights[k] = scores[index];
      if (params.load != nullptr) atomicAdd(params.load + index, 1);
    }
    if (lane == index % kWarpSize) {
      keys[index] = 0;
      best = FindLaneBest(keys, experts);
    }
  }
  for (int k = lane; k < params.top_k; k += kWarpSize) {
    const float score = k < kWarpSize ? scores[own] : weights[k];
    weights[k] = (params.normalize ? score / (sum + 1e-20F) : score) * params.scale;
  }
}

// One warp a block. Dynamic shared memory as RouteToken's.
__global__ void __launch_bounds__(kWarpSize) MoeRouteKernel(MoeRouteParams params) {
  extern __shared__ float route_shared[];
  LetNextKernelBegin();
  WaitForEarlierKernels();
  RouteToken(params, blockIdx.x, route_shared);
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_CUH_
