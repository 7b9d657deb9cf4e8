// Codes as kernels read them (kernels/linear/coded_layout.h), and what becomes of them in
// registers: numbers of bf16, code less zero times scale, rounded once or, where the scale has more
// digits than bf16, within 1.01 of a rounding. The same bits wherever they are decoded.
#ifndef TROUPE_KERNELS_LINEAR_CODED_UNITS_CUH_
#define TROUPE_KERNELS_LINEAR_CODED_UNITS_CUH_

#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <type_traits>

#include "kernels/cuda/math.cuh"
#include "kernels/linear/coded_layout.h"
#include "kernels/linear/coded_product.cuh"

namespace troupe {

__device__ __forceinline__ __nv_bfloat162 AsPair(uint32_t bits) {
  return *reinterpret_cast<const __nv_bfloat162*>(&bits);
}
__device__ __forceinline__ uint32_t BitsOfPair(__nv_bfloat162 pair) {
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ __forceinline__ uint32_t LowTwice(uint32_t bits) { return __byte_perm(bits, 0, 0x1010); }
__device__ __forceinline__ uint32_t HighTwice(uint32_t bits) {
  return __byte_perm(bits, 0, 0x3232);
}

// The scales of a lane's two outputs in one group, as they lie in memory.
template <CodedKind kKind>
struct StoredScales {
  using Scales = std::conditional_t<ScaleBytes(kKind) == 2, uint32_t, uint2>;
  Scales scales;
  uint16_t zeros;

  // `at`: the place of the lane's outputs in the group.
  __device__ __forceinline__ void Load(const CodedView& w, int64_t at) {
    scales = __ldg(reinterpret_cast<const Scales*>(w.scales) + at);
    if constexpr (StoresZeros(kKind)) zeros = __ldg(w.zeros + at);
  }
};

// The same, ready for products.
template <CodedKind kKind>
struct GroupFactors;

template <>
struct GroupFactors<CodedKind::kInt4> {
  __nv_bfloat162 scale[2];

  __device__ __forceinline__ explicit GroupFactors(const StoredScales<CodedKind::kInt4>& stored)
      : scale{AsPair(LowTwice(stored.scales)), AsPair(HighTwice(stored.scales))} {}
  // `code`: two codes, each 128 above its number's bits.
  __device__ __forceinline__ uint32_t Number(uint32_t code, int output) const {
    constexpr uint32_t kMiddle = 0x43084308;  // 128 + 8
    return BitsOfPair(__hmul2(__hsub2(AsPair(code), AsPair(kMiddle)), scale[output]));
  }
};

template <>
struct GroupFactors<CodedKind::kInt4Zeros> {
  __nv_bfloat162 high[2];
  __nv_bfloat162 low[2];
  __nv_bfloat162 zero[2];

  __device__ __forceinline__ explicit GroupFactors(
      const StoredScales<CodedKind::kInt4Zeros>& stored)
      : high{AsPair(LowTwice(stored.scales.x)), AsPair(LowTwice(stored.scales.y))},
        low{AsPair(HighTwice(stored.scales.x)), AsPair(HighTwice(stored.scales.y))},
        zero{AsPair(0x43004300U | (stored.zeros & 0xffU) * 0x10001U),
             AsPair(0x43004300U | (stored.zeros >> 8) * 0x10001U)} {}
  __device__ __forceinline__ uint32_t Number(uint32_t code, int output) const {
    const __nv_bfloat162 number = __hsub2(AsPair(code), zero[output]);
    return BitsOfPair(__hfma2(number, high[output], __hmul2(number, low[output])));
  }
};

template <>
struct GroupFactors<CodedKind::kFp4> {
  __nv_bfloat162 scale[2];

  __device__ __forceinline__ explicit GroupFactors(const StoredScales<CodedKind::kFp4>& stored)
      : scale{AsPair(LowTwice(stored.scales)), AsPair(HighTwice(stored.scales))} {}
  // `code`: sign, exponent and mantissa at their places in bf16, whose bias is 126 more.
  __device__ __forceinline__ uint32_t Number(uint32_t code, int output) const {
    constexpr uint32_t kBias = 0x7e807e80;  // 2^126
    return BitsOfPair(__hmul2(__hmul2(AsPair(code), AsPair(kBias)), scale[output]));
  }
};

struct FloatFactors {
  float scale[2];

  __device__ __forceinline__ explicit FloatFactors(const uint2& stored) {
    scale[0] = __uint_as_float(stored.x);
    scale[1] = __uint_as_float(stored.y);
  }
  __device__ __forceinline__ uint32_t Scaled(float first, float second, int output) const {
    return BitsOfPair(
        __floats2bfloat162_rn(__fmul_rn(first, scale[output]), __fmul_rn(second, scale[output])));
  }
};

template <>
struct GroupFactors<CodedKind::kFp8> : FloatFactors {
  __device__ __forceinline__ explicit GroupFactors(const StoredScales<CodedKind::kFp8>& stored)
      : FloatFactors(stored.scales) {}
  // `codes`: two in the lower half.
  __device__ __forceinline__ uint32_t Number(uint32_t codes, int output) const {
    const __half2 numbers =
        __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(codes), __NV_E4M3);
    return Scaled(__low2float(numbers), __high2float(numbers), output);
  }
};

template <>
struct GroupFactors<CodedKind::kInt8> : FloatFactors {
  float zero[2];  // 2^23 above

  __device__ __forceinline__ explicit GroupFactors(const StoredScales<CodedKind::kInt8>& stored)
      : FloatFactors(stored.scales) {
    zero[0] = __uint_as_float(0x4b000000U | (stored.zeros & 0xffU));
    zero[1] = __uint_as_float(0x4b000000U | (stored.zeros >> 8));
  }
  __device__ __forceinline__ uint32_t Number(uint32_t codes, int output) const {
    const float first = __uint_as_float(__byte_perm(codes, 0x4b000000U, 0x7440));
    const float second = __uint_as_float(__byte_perm(codes, 0x4b000000U, 0x7441));
    return Scaled(first - zero[output], second - zero[output], output);
  }
};

// One word of 4-bit codes: pair p as Number takes it.
template <CodedKind kKind>
__device__ __forceinline__ uint32_t NibblePair(uint32_t word, int pair) {
  if constexpr (kKind == CodedKind::kFp4) {
    const uint32_t top = word << (12 - 4 * pair);
    return (top & 0x80008000U) | ((top >> 6) & 0x01c001c0U);
  } else {
    return ((word >> (4 * pair)) & 0x000f000fU) | 0x43004300U;
  }
}

// Step `step` of a lane's unit, as the matrix units' operand A.
template <CodedKind kKind>
__device__ __forceinline__ void DecodeStep(const uint4& codes, int step,
                                           const GroupFactors<kKind>& factors, uint32_t (&a)[4]) {
  const uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
  if constexpr (UnitInputs(kKind) == 64) {
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      a[pair] = factors.Number(NibblePair<kKind>(words[step], pair), pair % 2);
    }
  } else {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t word = words[2 * step + half];
      a[2 * half] = factors.Number(word & 0xffffU, 0);
      a[2 * half + 1] = factors.Number(word >> 16, 1);
    }
  }
}

// A lane's unit with its scales. Units of 64 inputs may lie in two groups.
template <CodedKind kKind>
struct LoadedUnit {
  static constexpr int kInputs = UnitInputs(kKind);
  static constexpr int kSteps = kInputs / 16;
  static constexpr int kHalves = kInputs / 32;

  uint4 codes;
  StoredScales<kKind> scales[kHalves];

  // Where a lane finds a tile's first unit, and its scales.
  __device__ __forceinline__ static const uint4* CodesOf(const CodedView& w, int64_t tile,
                                                         int lane) {
    return w.codes + tile * (w.padded_inputs / kInputs) * kWarpSize + lane;
  }
  __device__ __forceinline__ static int64_t ScalesOf(const CodedView& w, int64_t tile, int lane) {
    return tile * w.groups * 8 + lane / 4;
  }

  __device__ __forceinline__ void LoadScales(const CodedView& w, int64_t scales_at, int unit) {
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      const int group = (unit * kInputs + half * 32) >> w.group_bits;
      scales[half].Load(w, scales_at + group * 8);
    }
  }
  __device__ __forceinline__ void Load(const CodedView& w, const uint4* codes_at, int64_t scales_at,
                                       int unit) {
    codes = __ldcs(codes_at + unit * kWarpSize);
    LoadScales(w, scales_at, unit);
  }
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_CODED_UNITS_CUH_
