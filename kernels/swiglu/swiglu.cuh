// Device code of kernels/swiglu/swiglu.h: a thread an element.
#ifndef TROUPE_KERNELS_SWIGLU_SWIGLU_CUH_
#define TROUPE_KERNELS_SWIGLU_SWIGLU_CUH_

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/swiglu/swiglu.h"

namespace troupe {

inline constexpr int kSwigluThreads = 256;

// Grid: rows in x, columns in y.
__global__ void SwigluKernel(SwigluParams params) {
  LetNextKernelBegin();
  WaitForEarlierKernels();
  const int64_t row = blockIdx.x;
  const int64_t col = static_cast<int64_t>(blockIdx.y) * kSwigluThreads + threadIdx.x;
  if (col >= params.out.cols) return;
  const bool gated = params.gate_up.cols != params.out.cols;
  const float* gate = static_cast<const float*>(params.gate_up.data) + row * params.gate_up.stride;
  static_cast<float*>(params.out.data)[row * params.out.stride + col] =
      gated ? Activate(params.activation, gate[col], gate[params.out.cols + col]) : Silu(gate[col]);
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_SWIGLU_SWIGLU_CUH_
