// Device code of kernels/rms_norm/rms_norm.h: one block a row.
#ifndef TROUPE_KERNELS_RMS_NORM_RMS_NORM_CUH_
#define TROUPE_KERNELS_RMS_NORM_RMS_NORM_CUH_

#include "kernels/rms_norm/row_norm.cuh"

namespace troupe {

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

// The same for whole rows of up to kFours * 4 * kRmsNormThreads columns, aligned, which threads
// keep in registers; weights are there before the row is. Without accumulate and square_sums.
template <int kFours>
__global__ void __launch_bounds__(kRmsNormThreads) RmsNormShortKernel(RmsNormParams params) {
  __shared__ float warp_sums[kRmsNormThreads / kWarpSize];
  const int64_t row = blockIdx.x;
  const int fours = static_cast<int>(params.x.cols / 4);
  const auto* x = reinterpret_cast<const float4*>(static_cast<const float*>(params.x.data) +
                                                  row * params.x.stride);
  const auto* weight = static_cast<const float4*>(params.weight.data);
  auto* out =
      reinterpret_cast<float4*>(static_cast<float*>(params.out.data) + row * params.out.stride);
  float4 kept_weight[kFours];
  float4 kept_x[kFours];
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    const int four = static_cast<int>(threadIdx.x) + i * kRmsNormThreads;
    kept_weight[i] = four < fours ? weight[four] : float4{};
  }
  LetNextKernelBegin();
  WaitForEarlierKernels();
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    const int four = static_cast<int>(threadIdx.x) + i * kRmsNormThreads;
    kept_x[i] = four < fours ? x[four] : float4{};
    squares += SquaresOf(kept_x[i]);
  }
  squares = BlockSum(squares, warp_sums);
  const float scale = ScaleOf(squares, params.x.cols, params.eps);
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    const int four = static_cast<int>(threadIdx.x) + i * kRmsNormThreads;
    if (four < fours) out[four] = NormedFour(kept_x[i], scale, kept_weight[i]);
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_RMS_NORM_RMS_NORM_CUH_
