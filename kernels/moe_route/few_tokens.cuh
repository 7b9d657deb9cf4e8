// The router's product and the choice of experts of few tokens in one kernel: a warp an expert
// forms the logits, and the block that finishes a token's last one chooses for it.
//
// Invariant: logits are summed as kernels/linear/linear_exact.cuh sums in units of 4 inputs.
#ifndef TROUPE_KERNELS_MOE_ROUTE_FEW_TOKENS_CUH_
#define TROUPE_KERNELS_MOE_ROUTE_FEW_TOKENS_CUH_

#include "kernels/cuda/hopper.cuh"
#include "kernels/moe_route/moe_route.cuh"

namespace troupe {

inline constexpr int kRouteWarps = 4;
inline constexpr int kRouteUnit = 4;

struct FewTokensRoute {
  MoeRouteParams route;      // whose logits are written
  const float* x = nullptr;  // [T, inputs], rows at multiples of 16 bytes
  int64_t x_stride = 0;
  const void* router = nullptr;        // [E, inputs]
  const float* router_bias = nullptr;  // [E]; null: none
  int inputs = 0;                      // a multiple of kRouteUnit
  unsigned* arrived = nullptr;         // [T] zero before and after
};

// A lane's part of a product, with the loads of kAhead units under way at a time.
template <class Weight>
__device__ __forceinline__ float LaneSum(const Weight* w, const float* x, int inputs) {
  constexpr int kAhead = 8;
  constexpr int kStep = kWarpSize * kRouteUnit;
  const int first = static_cast<int>(threadIdx.x) % kWarpSize * kRouteUnit;
  float sum = 0;
  for (int begin = first; begin < inputs; begin += kAhead * kStep) {
    float weights[kAhead][kRouteUnit];
    float values[kAhead][kRouteUnit];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int at = min(begin + i * kStep, inputs - kRouteUnit);
      LoadElements<kRouteUnit>(w + at, weights[i]);
      LoadElements<kRouteUnit>(x + at, values[i]);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (begin + i * kStep >= inputs) break;
#pragma unroll
      for (int u = 0; u < kRouteUnit; ++u) sum = __fmaf_rn(weights[i][u], values[i][u], sum);
    }
  }
  return sum;
}

// Grid: groups of kRouteWarps experts in x, tokens in y. Dynamic shared memory as
// RouteToken's.
template <class Weight>
__global__ void __launch_bounds__(kRouteWarps* kWarpSize)
    FewTokensRouteKernel(FewTokensRoute params) {
  extern __shared__ float route_shared[];
  __shared__ bool is_last;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t token = blockIdx.y;
  const int expert = static_cast<int>(blockIdx.x) * kRouteWarps + warp;
  const auto experts = static_cast<int>(params.route.logits.cols);
  const auto* w = static_cast<const Weight*>(params.router) +
                  static_cast<int64_t>(min(expert, experts - 1)) * params.inputs;
  constexpr int kLine = 128 / sizeof(Weight);
  for (int i = lane * kLine; i < params.inputs; i += kWarpSize * kLine) {
    asm volatile("prefetch.global.L2 [%0];\n" ::"l"(w + i));
  }
  WaitForEarlierKernels();
  LetNextKernelBegin();
  float sum = LaneSum(w, params.x + token * params.x_stride, params.inputs);
  sum = WarpSum(sum);
  if (lane == 0 && expert < experts) {
    sum += params.router_bias == nullptr ? 0.0F : params.router_bias[expert];
    static_cast<float*>(params.route.logits.data)[token * params.route.logits.stride + expert] =
        sum;
    __threadfence();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    is_last = atomicInc(params.arrived + token, gridDim.x - 1) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (is_last && warp == 0) RouteToken(params.route, token, route_shared);
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_ROUTE_FEW_TOKENS_CUH_
