// Device code of kernels/swiglu/swiglu.h: a thread kUnit elements.
#ifndef TROUPE_KERNELS_SWIGLU_SWIGLU_CUH_
#define TROUPE_KERNELS_SWIGLU_SWIGLU_CUH_

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/swiglu/swiglu.h"

namespace troupe {

inline constexpr int kSwigluThreads = 256;

// Grid: rows in x, groups of kUnit * kSwigluThreads columns in y. With kUnit 4 rows begin at
// multiples of 16 bytes, results at multiples of 8, and columns are a multiple of it. Results are
// f32, or rounded to bf16.
template <int kUnit, class Out>
__global__ void __launch_bounds__(kSwigluThreads) SwigluKernel(SwigluParams params) {
  LetNextKernelBegin();
  WaitForEarlierKernels();
  const int64_t row = blockIdx.x;
  const int64_t col = (static_cast<int64_t>(blockIdx.y) * kSwigluThreads + threadIdx.x) * kUnit;
  if (col >= params.out.cols) return;
  const bool gated = params.gate_up.cols != params.out.cols;
  const float* from =
      static_cast<const float*>(params.gate_up.data) + row * params.gate_up.stride + col;
  float gate[kUnit];
  float up[kUnit] = {};
  LoadElements<kUnit>(from, gate);
  if (gated) LoadElements<kUnit>(from + params.out.cols, up);
  float result[kUnit];
#pragma unroll
  for (int i = 0; i < kUnit; ++i) {
    result[i] = gated ? Activate(params.activation, gate[i], up[i]) : Silu(gate[i]);
  }
  Out* to = static_cast<Out*>(params.out.data) + row * params.out.stride + col;
  if constexpr (kUnit == 4) {
    const float4 four = {result[0], result[1], result[2], result[3]};
    if constexpr (sizeof(Out) == sizeof(float)) {
      *reinterpret_cast<float4*>(to) = four;
    } else {
      *reinterpret_cast<uint2*>(to) = RoundedFour(four);
    }
  } else {
    *to = Narrow<Out>(result[0]);
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_SWIGLU_SWIGLU_CUH_
