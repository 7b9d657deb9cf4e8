// What kernels share that norm rows by fours of f32: the same bits from all of them.
#ifndef TROUPE_KERNELS_RMS_NORM_ROW_NORM_CUH_
#define TROUPE_KERNELS_RMS_NORM_ROW_NORM_CUH_

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/math.cuh"
#include "kernels/rms_norm/rms_norm.h"

namespace troupe {

inline constexpr int kRmsNormThreads = 256;  // that share a row out

__device__ __forceinline__ float SquaresOf(const float4& four) {
  float squares = __fmul_rn(four.x, four.x);
  squares = __fmaf_rn(four.y, four.y, squares);
  squares = __fmaf_rn(four.z, four.z, squares);
  return __fmaf_rn(four.w, four.w, squares);
}

__device__ __forceinline__ float ScaleOf(float squares, int64_t cols, float eps) {
  return 1.0F / sqrtf(squares / static_cast<float>(cols) + eps);
}

__device__ __forceinline__ float4 NormedFour(const float4& x, float scale, const float4& weight) {
  return {__fmul_rn(__fmul_rn(x.x, scale), weight.x), __fmul_rn(__fmul_rn(x.y, scale), weight.y),
          __fmul_rn(__fmul_rn(x.z, scale), weight.z), __fmul_rn(__fmul_rn(x.w, scale), weight.w)};
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_RMS_NORM_ROW_NORM_CUH_
