// Rows of x as Precision::kFp8Groups sees them (kernels/linear/linear.h).
#ifndef TROUPE_KERNELS_LINEAR_FP8_ROUND_CUH_
#define TROUPE_KERNELS_LINEAR_FP8_ROUND_CUH_

#include <cuda_fp8.h>

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/math.cuh"
#include "kernels/linear/fp8_layout.h"

namespace troupe {

inline constexpr int kFp8RoundThreads = 256;

// Pointers are to device memory.
struct Fp8Rounding {
  const void* x = nullptr;  // [rows, cols]
  int64_t stride = 0;
  int cols = 0;
  int blocks = 0;
  // [rows, copies] the row that a copy becomes, or -1; null: a row stays where it is.
  const int32_t* place = nullptr;
  int copies = 1;
  uint8_t* codes = nullptr;  // [rows, blocks * kFp8Block], zeros behind the columns; or
  float* values = nullptr;   // [rows, cols] what the codes stand for
  float* scales = nullptr;   // [blocks, scale_stride], with codes
  int64_t scale_stride = 0;
};

// A lane's 4 columns of a block, rounded to bf16.
template <class T>
__device__ __forceinline__ void LoadFour(const T* row, int col, int cols, float (&values)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[i] = col + i < cols ? Widen(Narrow<CudaBf16>(Widen(row[col + i]))) : 0.0F;
  }
}

__device__ __forceinline__ uint32_t ToE4M3(const float (&values)[4]) {
  const auto pair = [](float first, float second) {
    return static_cast<uint32_t>(
        __nv_cvt_float2_to_fp8x2({first, second}, __NV_SATFINITE, __NV_E4M3));
  };
  return pair(values[0], values[1]) | pair(values[2], values[3]) << 16;
}

__device__ __forceinline__ float FromE4M3Code(uint32_t code) {
  return __half2float(
      __half(__nv_cvt_fp8_to_halfraw(static_cast<__nv_fp8_storage_t>(code & 0xff), __NV_E4M3)));
}

__device__ __forceinline__ void PutBlock(const Fp8Rounding& rounding, int64_t row, int block,
                                         uint32_t codes, float scale) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int col = block * kFp8Block + lane * 4;
  if (rounding.codes != nullptr) {
    uint8_t* to = rounding.codes + row * rounding.blocks * kFp8Block + col;
    *reinterpret_cast<uint32_t*>(to) = codes;
    if (lane == 0) rounding.scales[block * rounding.scale_stride + row] = scale;
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (col + i < rounding.cols) {
      rounding.values[row * rounding.cols + col + i] =
          __fmul_rn(FromE4M3Code(codes >> 8 * i), scale);
    }
  }
}

// A warp a block. Grid: rows in x, groups of blocks in y.
template <class T>
__global__ void __launch_bounds__(kFp8RoundThreads) Fp8RoundKernel(Fp8Rounding rounding) {
  LetNextKernelBegin();
  WaitForEarlierKernels();
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int block = static_cast<int>(blockIdx.y) * (kFp8RoundThreads / kWarpSize) +
                    static_cast<int>(threadIdx.x) / kWarpSize;
  if (block >= rounding.blocks) return;
  const int64_t row = blockIdx.x;
  float values[4];
  LoadFour(static_cast<const T*>(rounding.x) + row * rounding.stride, block * kFp8Block + lane * 4,
           rounding.cols, values);
  float range = 0.0F;
  bool finite = true;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    range = fmaxf(range, fabsf(values[i]));
    finite = finite && isfinite(values[i]);
  }
  range = WarpMax(range);
  finite = __all_sync(kAllLanes, finite);
  const float inverse = range < kLeastIntegerRange ? 0.0F : __fdiv_rn(kMostFp8, range);
  const float scale = finite ? __fdiv_rn(range, kMostFp8) : __uint_as_float(0x7fffffffU);
#pragma unroll
  for (int i = 0; i < 4; ++i) values[i] = __fmul_rn(values[i], inverse);
  const uint32_t codes = ToE4M3(values);
  if (rounding.place == nullptr) return PutBlock(rounding, row, block, codes, scale);
  for (int copy = 0; copy < rounding.copies; ++copy) {
    const int64_t to = rounding.place[row * rounding.copies + copy];
    if (to >= 0) PutBlock(rounding, to, block, codes, scale);
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_FP8_ROUND_CUH_
