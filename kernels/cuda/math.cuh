// Small device functions that several operations share: elements, reductions over a warp or a
// block, and the functions of one number that models use.
//
// Invariant: sums are formed in an order that depends on sizes alone, with explicit fused
// multiply-adds, so that a row's bits do not depend on what else a launch computes.
#ifndef TROUPE_KERNELS_CUDA_MATH_CUH_
#define TROUPE_KERNELS_CUDA_MATH_CUH_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/tensor.h"

namespace troupe {

using CudaBf16 = __nv_bfloat16;

inline constexpr int kWarpSize = 32;
inline constexpr unsigned kAllLanes = 0xffffffffU;

__device__ __forceinline__ float Widen(float value) { return value; }
__device__ __forceinline__ float Widen(CudaBf16 value) { return __bfloat162float(value); }

template <class To>
__device__ __forceinline__ To Narrow(float value);
template <>
__device__ __forceinline__ float Narrow<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ CudaBf16 Narrow<CudaBf16>(float value) {
  return __float2bfloat16_rn(value);
}

__device__ __forceinline__ float RoundedToBf16(float value) {
  return __bfloat162float(__float2bfloat16_rn(value));
}

// `kCount` elements, aligned to as many bytes as they take, up to 16 at a time.
template <int kCount>
__device__ __forceinline__ void LoadElements(const float* from, float (&to)[kCount]) {
  if constexpr (kCount % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(from + i);
      to[i] = four.x;
      to[i + 1] = four.y;
      to[i + 2] = four.z;
      to[i + 3] = four.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) to[i] = from[i];
  }
}

__device__ __forceinline__ void SplitBf16Pair(uint32_t pair, float& low, float& high) {
  low = __uint_as_float(pair << 16);
  high = __uint_as_float(pair & 0xffff0000U);
}

template <int kCount>
__device__ __forceinline__ void LoadElements(const CudaBf16* from, float (&to)[kCount]) {
  if constexpr (kCount % 8 == 0) {
#pragma unroll
    for (int i = 0; i < kCount; i += 8) {
      const uint4 eight = *reinterpret_cast<const uint4*>(from + i);
      SplitBf16Pair(eight.x, to[i], to[i + 1]);
      SplitBf16Pair(eight.y, to[i + 2], to[i + 3]);
      SplitBf16Pair(eight.z, to[i + 4], to[i + 5]);
      SplitBf16Pair(eight.w, to[i + 6], to[i + 7]);
    }
  } else if constexpr (kCount % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const uint2 four = *reinterpret_cast<const uint2*>(from + i);
      SplitBf16Pair(four.x, to[i], to[i + 1]);
      SplitBf16Pair(four.y, to[i + 2], to[i + 3]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) to[i] = Widen(from[i]);
  }
}

__device__ __forceinline__ float WarpSum(float value) {
#pragma unroll
  for (int lane = kWarpSize / 2; lane > 0; lane /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, lane);
  }
  return value;
}

__device__ __forceinline__ float WarpMax(float value) {
#pragma unroll
  for (int lane = kWarpSize / 2; lane > 0; lane /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, lane));
  }
  return value;
}

// The sum over the block, in every thread. `shared` holds a float for each warp.
__device__ __forceinline__ float BlockSum(float value, float* shared) {
  value = WarpSum(value);
  const int warps = static_cast<int>(blockDim.x) / kWarpSize;
  if (threadIdx.x % kWarpSize == 0) shared[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  float sum = 0;
  for (int warp = 0; warp < warps; ++warp) sum += shared[warp];
  __syncthreads();
  return sum;
}

__device__ __forceinline__ float Sigmoid(float x) { return 1.0F / (1.0F + expf(-x)); }
__device__ __forceinline__ float Silu(float x) { return x / (1.0F + expf(-x)); }

__device__ __forceinline__ uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// Copies 16 bytes to shared memory in the background, or zeros where there is nothing to read.
__device__ __forceinline__ void CopyAsync16(void* shared, const void* global, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(SharedAddress(shared)),
               "l"(global), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void CommitCopies() {
  asm volatile("cp.async.commit_group;\n" ::: "memory");
}
// Waits until at most kPending of this thread's latest groups are under way.
template <int kPending>
__device__ __forceinline__ void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
}

// Calls `run` with a value of the element type that `dtype` names.
template <class Run>
void WithElement(DType dtype, const Run& run) {
  if (dtype == DType::kF32) {
    run(float{});
  } else {
    run(CudaBf16{});
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_MATH_CUH_
