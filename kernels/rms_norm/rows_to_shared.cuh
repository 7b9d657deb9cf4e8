// Rows of f32, normed where that is wanted, as rows of bf16 in shared memory: what products read
// that norm x by themselves. The bits are those of RmsNormShortKernel, rounded.
//
// For blocks of kRmsNormThreads threads.
#ifndef TROUPE_KERNELS_RMS_NORM_ROWS_TO_SHARED_CUH_
#define TROUPE_KERNELS_RMS_NORM_ROWS_TO_SHARED_CUH_

#include <type_traits>

#include "kernels/rms_norm/row_norm.cuh"

namespace troupe {

// Of rows of up to kNormedFours * 4 * kRmsNormThreads columns.
inline constexpr int kNormedFours = 4;
inline constexpr int64_t kMostNormedCols = int64_t{kNormedFours} * 4 * kRmsNormThreads;

// How many fours of a row a thread keeps; 0: rows are not normed.
inline int NormedFours(const InputNorm& norm, int64_t cols) {
  return norm.weight == nullptr ? 0 : cols <= kMostNormedCols / 2 ? kNormedFours / 2 : kNormedFours;
}

// Calls `run` with that number as a constant.
template <class Run>
void WithNormedFours(const InputNorm& norm, int64_t cols, const Run& run) {
  switch (NormedFours(norm, cols)) {
    case 0:
      run(std::integral_constant<int, 0>());
      break;
    case kNormedFours / 2:
      run(std::integral_constant<int, kNormedFours / 2>());
      break;
    default:
      run(std::integral_constant<int, kNormedFours>());
  }
}

// A thread's part of the weights, which may be there before the rows are.
template <int kFours>
struct NormWeights {
  float4 kept[kFours];

  __device__ __forceinline__ NormWeights(const InputNorm& norm, int cols) {
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      const int four = static_cast<int>(threadIdx.x) + i * kRmsNormThreads;
      kept[i] = four < cols / 4 ? reinterpret_cast<const float4*>(norm.weight)[four] : float4{};
    }
  }
};
template <>
struct NormWeights<0> {
  __device__ __forceinline__ NormWeights(const InputNorm& /*norm*/, int /*cols*/) {}
};

// kRows rows at most, from `first` on; rows in shared memory are `row_bytes` apart.
template <int kFours, int kRows>
__device__ __forceinline__ void NormSomeRows(const float* x, int64_t stride, int first, int rows,
                                             int cols, const NormWeights<kFours>& weights,
                                             float eps, std::byte* to, int row_bytes) {
  constexpr int kWarps = kRmsNormThreads / kWarpSize;
  __shared__ float warp_sums[kRows][kWarps];
  const int thread = static_cast<int>(threadIdx.x);
  float4 kept[kRows][kFours];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      const int four = thread + i * kRmsNormThreads;
      const bool inside = first + r < rows && four < cols / 4;
      kept[r][i] =
          inside ? reinterpret_cast<const float4*>(x + (first + r) * stride)[four] : float4{};
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (first + r >= rows) break;
    float squares = 0;
#pragma unroll
    for (int i = 0; i < kFours; ++i) squares += SquaresOf(kept[r][i]);
    squares = WarpSum(squares);
    if (thread % kWarpSize == 0) warp_sums[r][thread / kWarpSize] = squares;
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (first + r >= rows) break;
    float squares = 0;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) squares += warp_sums[r][warp];
    const float scale = ScaleOf(squares, cols, eps);
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      const int four = thread + i * kRmsNormThreads;
      if (four >= cols / 4) break;
      reinterpret_cast<uint2*>(to + (first + r) * row_bytes)[four] =
          RoundedFour(NormedFour(kept[r][i], scale, weights.kept[i]));
    }
  }
}

// By all threads of the block. `cols` are a multiple of 4, no more than NormedFours allows, and
// rows begin at multiples of 16 bytes. The block's other shared memory is not waited for.
template <int kFours>
__device__ __forceinline__ void NormRowsToShared(const float* x, int64_t stride, int rows, int cols,
                                                 const NormWeights<kFours>& weights, float eps,
                                                 std::byte* to, int row_bytes) {
  if (rows == 1) {
    NormSomeRows<kFours, 1>(x, stride, 0, rows, cols, weights, eps, to, row_bytes);
    return;
  }
  constexpr int kAtOnce = 16 / kFours;  // what registers take
  for (int first = 0; first < rows; first += kAtOnce) {
    if (first > 0) __syncthreads();  // all have read the sums of the rows before
    NormSomeRows<kFours, kAtOnce>(x, stride, first, rows, cols, weights, eps, to, row_bytes);
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_RMS_NORM_ROWS_TO_SHARED_CUH_
