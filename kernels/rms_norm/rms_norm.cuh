// Device code of kernels/rms_norm/rms_norm.h: one block a row.
#ifndef TROUPE_KERNELS_RMS_NORM_RMS_NORM_CUH_
#define TROUPE_KERNELS_RMS_NORM_RMS_NORM_CUH_

#include "kernels/cuda/math.cuh"
#include "kernels/rms_norm/rms_norm.h"

namespace troupe {

inline constexpr int kRmsNormThreads = 256;

// A row's sum of squares, to every thread; its order depends on the number of columns alone.
__device__ inline float RowSquares(const float* x, int64_t cols, float* warp_sums) {
  float squares = 0;
  for (int64_t c = threadIdx.x; c < cols; c += kRmsNormThreads) {
    squares = __fmaf_rn(x[c], x[c], squares);
  }
  return BlockSum(squares, warp_sums);
}

__global__ void __launch_bounds__(kRmsNormThreads) SquareSumsKernel(SquareSumsParams params) {
  __shared__ float warp_sums[kRmsNormThreads / kWarpSize];
  const int64_t row = blockIdx.x;
  const float* x = static_cast<const float*>(params.x.data) + row * params.x.stride;
  const float squares = RowSquares(x, params.x.cols, warp_sums);
  if (threadIdx.x == 0) params.sums[row] = squares;
}

__global__ void __launch_bounds__(kRmsNormThreads) RmsNormKernel(RmsNormParams params) {
  __shared__ float warp_sums[kRmsNormThreads / kWarpSize];
  const int64_t row = blockIdx.x;
  const int64_t cols = params.x.cols;
  const float* x = static_cast<const float*>(params.x.data) + row * params.x.stride;
  const auto* weight = static_cast<const float*>(params.weight.data);
  float* out = static_cast<float*>(params.out.data) + row * params.out.stride;
  const float squares =
      params.square_sums == nullptr ? RowSquares(x, cols, warp_sums) : params.square_sums[row];
  const float scale = 1.0F / sqrtf(squares / static_cast<float>(cols * params.parts) + params.eps);
  // In place is fine: a thread writes only what it alone has read.
  for (int64_t c = threadIdx.x; c < cols; c += kRmsNormThreads) {
    const float normed = x[c] * scale;
    out[c] = params.accumulate ? __fmaf_rn(normed, weight[c], out[c]) : normed * weight[c];
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_RMS_NORM_RMS_NORM_CUH_
