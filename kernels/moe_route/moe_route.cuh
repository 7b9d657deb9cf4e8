// Device code of kernels/moe_route/moe_route.h: one warp a token.
//
// Invariant: sums run in an order that the number of experts alone decides.
#ifndef TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_CUH_
#define TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_CUH_

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/math.cuh"
#include "kernels/moe_route/moe_route.h"

namespace troupe {

// As many as a warp's registers take, and as there may be.
inline constexpr int kMostRoutedExperts = 512;
inline constexpr int kMostExperts = 8192;

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
  for (int i = static_cast<int>(threadIdx.x) % kWarpSize; i < count; i += kWarpSize) {
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

// Of loops over a lane's experts: more than these would not stay in registers.
template <int kOwn>
inline constexpr int kUnroll = kOwn <= 32 ? kOwn : 1;

// A lane's experts, `lane`, `lane` + 32, ...: s of each, and nothing of those beyond the last.
template <int kOwn>
__device__ __forceinline__ void ScoreExperts(RouterScoring scoring, const float* logits,
                                             int experts, float (&scores)[kOwn]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll kUnroll < kOwn>
  for (int i = 0; i < kOwn; ++i) {
    const int e = lane + i * kWarpSize;
    scores[i] = e < experts ? logits[e] : -INFINITY;
  }
  if (scoring == RouterScoring::kSigmoid) {
#pragma unroll kUnroll < kOwn>
    for (int i = 0; i < kOwn; ++i) scores[i] = Sigmoid(scores[i]);
    return;
  }
  float largest = -INFINITY;
#pragma unroll kUnroll < kOwn>
  for (int i = 0; i < kOwn; ++i) largest = fmaxf(largest, scores[i]);
  largest = WarpMax(largest);
  float sum = 0;
#pragma unroll kUnroll < kOwn>
  for (int i = 0; i < kOwn; ++i) {
    scores[i] = expf(scores[i] - largest);  // 0 beyond the last
    sum += scores[i];
  }
  sum = WarpSum(sum);
#pragma unroll kUnroll < kOwn>
  for (int i = 0; i < kOwn; ++i) scores[i] = __fdiv_rn(scores[i], sum);
}

// Leaves no chance to experts outside of the chosen groups. `group_scores` has room for every
// group.
__device__ __forceinline__ void LimitToGroups(const MoeRouteParams& params, int experts, float* c,
                                              float* group_scores) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
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

// The top_k largest keys, ties to the lower index. Keys become 0 once chosen.
template <int kOwn>
__device__ __forceinline__ void ChooseExperts(const MoeRouteParams& params, int64_t token,
                                              const float (&scores)[kOwn], uint32_t (&keys)[kOwn]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const auto experts = static_cast<int>(params.logits.cols);
  int32_t* chosen = params.experts + token * params.top_k;
  float* weights = params.weights + token * params.top_k;
  float sum = 0;
  float own_score = 0;  // of choice `lane`
  for (int k = 0; k < params.top_k; ++k) {
    // The lane's best, ties to the lower index.
    uint32_t best = 0;
    int at = 0;
    float score = scores[0];
#pragma unroll kUnroll < kOwn>
    for (int i = 0; i < kOwn; ++i) {
      if (keys[i] <= best) continue;
      best = keys[i];
      at = i;
      score = scores[i];
    }
    const uint32_t most = __reduce_max_sync(kAllLanes, best);
    const unsigned mine = lane + at * kWarpSize;
    const unsigned index = min(__reduce_min_sync(kAllLanes, best == most ? mine : 0xffffffffU),
                               static_cast<unsigned>(experts - 1));
    const float chosen_score = __shfl_sync(kAllLanes, score, static_cast<int>(index) % kWarpSize);
    sum = __fadd_rn(sum, chosen_score);
    if (lane == k % kWarpSize) {
      chosen[k] = static_cast<int32_t>(index);
      if (k < kWarpSize) {
        own_score = chosen_score;
      } else {
        weights[k] = chosen_score;
      }
      if (params.load != nullptr) atomicAdd(params.load + index, 1);
    }
#pragma unroll kUnroll < kOwn>
    for (int i = 0; i < kOwn; ++i) {
      if (index == lane + i * kWarpSize) keys[i] = 0;
    }
  }
  for (int k = lane; k < params.top_k; k += kWarpSize) {
    const float score = k < kWarpSize ? own_score : weights[k];
    weights[k] = (params.normalize ? score / (sum + 1e-20F) : score) * params.scale;
  }
}

__device__ __forceinline__ const float* LogitsOf(const MoeRouteParams& params, int64_t token) {
  return static_cast<const float*>(params.logits.data) + token * params.logits.stride;
}

// By a warp, whose lanes have kOwn experts each. `shared`: a number for each
// expert and each group.
template <int kOwn>
__device__ __forceinline__ void RouteTokenOf(const MoeRouteParams& params, int64_t token,
                                             const float* logits, float* shared) {
  const auto experts = static_cast<int>(params.logits.cols);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  float scores[kOwn];
  ScoreExperts<kOwn>(params.scoring, logits, experts, scores);
  float ranks[kOwn];
#pragma unroll kUnroll < kOwn>
  for (int i = 0; i < kOwn; ++i) {
    const int e = lane + i * kWarpSize;
    ranks[i] = params.bias == nullptr || e >= experts ? scores[i] : scores[i] + params.bias[e];
  }
  if (params.group_score != GroupScore::kNone) {
#pragma unroll kUnroll < kOwn>
    for (int i = 0; i < kOwn; ++i) {
      if (lane + i * kWarpSize < experts) shared[lane + i * kWarpSize] = ranks[i];
    }
    __syncwarp();
    LimitToGroups(params, experts, shared, shared + experts);
#pragma unroll kUnroll < kOwn>
    for (int i = 0; i < kOwn; ++i) {
      if (lane + i * kWarpSize < experts) ranks[i] = shared[lane + i * kWarpSize];
    }
  }
  uint32_t keys[kOwn];  // 0: chosen, or none
#pragma unroll kUnroll < kOwn>
  for (int i = 0; i < kOwn; ++i) {
    keys[i] = lane + i * kWarpSize < experts ? RankKey(ranks[i]) : 0;
  }
  ChooseExperts<kOwn>(params, token, scores, keys);
}

// By a warp, for up to kMostRoutedExperts. `shared`: a number for each expert and each group.
__device__ __forceinline__ void RouteToken(const MoeRouteParams& params, int64_t token,
                                           const float* logits, float* shared) {
  if (params.logits.cols <= 4 * kWarpSize) {
    RouteTokenOf<4>(params, token, logits, shared);
  } else {
    RouteTokenOf<kMostRoutedExperts / kWarpSize>(params, token, logits, shared);
  }
}

// One warp a block. Dynamic shared memory: a number for each expert and each group.
template <bool kMany>
__global__ void __launch_bounds__(kWarpSize) MoeRouteKernel(MoeRouteParams params) {
  extern __shared__ float route_shared[];
  LetNextKernelBegin();
  WaitForEarlierKernels();
  const float* logits = LogitsOf(params, blockIdx.x);
  if constexpr (kMany) {
    RouteTokenOf<kMostExperts / kWarpSize>(params, blockIdx.x, logits, route_shared);
  } else {
    RouteToken(params, blockIdx.x, logits, route_shared);
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_CUH_
