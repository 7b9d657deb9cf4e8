// AVX-512 (F, BW, VL, DQ) with or without BF16; included by kernels/simd/simd.h, which documents
// it.
#ifndef TROUPE_KERNELS_SIMD_VEC_AVX512_H_
#define TROUPE_KERNELS_SIMD_VEC_AVX512_H_

#include <immintrin.h>

#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/e4m3.h"

namespace troupe::TROUPE_ISA {

inline constexpr int kLanes = 16;
inline constexpr int kMaxTileVecs = 24;

struct Vec {
  __m512 v;
};
struct PairVec {
  __m512i v;
};
struct CodeVec {
  __m512i v;
};
struct Lut16 {
  __m512i v;
};

inline Vec Zero() { return {_mm512_setzero_ps()}; }
inline Vec Set1(float x) { return {_mm512_set1_ps(x)}; }
inline Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Vec Fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec Max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Vec Min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Vec Sqrt(Vec a) { return {_mm512_sqrt_ps(a.v)}; }
inline float Sum(Vec a) { return _mm512_reduce_add_ps(a.v); }
inline float ReduceMax(Vec a) { return _mm512_reduce_max_ps(a.v); }

inline __mmask16 FirstLanes(int n) { return static_cast<__mmask16>((1u << n) - 1); }

inline Vec Load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline Vec Load(const float* p, int n) { return {_mm512_maskz_loadu_ps(FirstLanes(n), p)}; }
inline void Store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
inline void Store(float* p, Vec a, int n) { _mm512_mask_storeu_ps(p, FirstLanes(n), a.v); }

inline Vec WidenBf16(__m256i bits) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
inline Vec Load(const Bf16* p) {
  return WidenBf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Vec Load(const Bf16* p, int n) {
  return WidenBf16(_mm256_maskz_loadu_epi16(FirstLanes(n), p));
}

// By integer arithmetic on all instruction sets: vcvtneps2bf16 flushes subnormals.
inline __m256i NarrowBf16(Vec a) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_blend_epi32(nan, rounded, quiet), 16));
}
inline void Store(Bf16* p, Vec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), NarrowBf16(a));
}
inline void Store(Bf16* p, Vec a, int n) {
  _mm256_mask_storeu_epi16(p, FirstLanes(n), NarrowBf16(a));
}

// Subnormal codes apart: products with subnormal numbers are slow.
inline Vec WidenE4M3Codes(__m128i bytes) {
  const __m512i codes = _mm512_cvtepu8_epi32(bytes);
  const __m512i size = _mm512_and_si512(codes, _mm512_set1_epi32(0x7f));
  const __m512i sign = _mm512_slli_epi32(_mm512_xor_si512(codes, size), 24);
  const __m512i normal =
      _mm512_add_epi32(_mm512_slli_epi32(size, 20), _mm512_set1_epi32(120 << 23));
  const __m512 subnormal = _mm512_mul_ps(_mm512_cvtepi32_ps(size), _mm512_set1_ps(0x1p-9f));
  const __mmask16 small = _mm512_cmplt_epi32_mask(size, _mm512_set1_epi32(8));
  const __m512i number = _mm512_mask_blend_epi32(small, normal, _mm512_castps_si512(subnormal));
  return {_mm512_castsi512_ps(_mm512_or_si512(number, sign))};
}
inline Vec Load(const E4M3* p) {
  return WidenE4M3Codes(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Vec Load(const E4M3* p, int n) {
  return WidenE4M3Codes(_mm_maskz_loadu_epi8(FirstLanes(n), p));
}

inline PairVec LoadPairs(const Bf16* p) { return {_mm512_loadu_si512(p)}; }
inline PairVec Set1Pair(const Bf16* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, sizeof(pair));
  return {_mm512_set1_epi32(pair)};
}
inline Vec Low(PairVec a) { return {_mm512_castsi512_ps(_mm512_slli_epi32(a.v, 16))}; }
inline Vec High(PairVec a) {
  return {_mm512_castsi512_ps(
      _mm512_and_si512(a.v, _mm512_set1_epi32(static_cast<int32_t>(0xffff0000))))};
}

#ifdef __AVX512BF16__
inline constexpr bool kNativeDotPairs = true;
inline Vec DotPairs(PairVec a, PairVec b, Vec c) {
  return {_mm512_dpbf16_ps(c.v, reinterpret_cast<__m512bh>(a.v), reinterpret_cast<__m512bh>(b.v))};
}
#else
inline constexpr bool kNativeDotPairs = false;
inline Vec DotPairs(PairVec a, PairVec b, Vec c) {
  return Fma(Low(a), Low(b), Fma(High(a), High(b), c));
}
#endif

inline CodeVec LoadCodes(const void* p) { return {_mm512_loadu_si512(p)}; }
// Twice, so that the bit above an index does not matter.
inline Lut16 LoadLut16(const Bf16* p) {
  return {_mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
template <int kShift>
inline PairVec LookUp(Lut16 table, CodeVec codes) {
  return {_mm512_permutexvar_epi16(_mm512_srli_epi16(codes.v, kShift), table.v)};
}
template <int kByte>
inline Vec SignedByte(CodeVec codes) {
  return {_mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(codes.v, 24 - 8 * kByte), 24))};
}
template <int kByte>
inline PairVec WidenE4M3(Lut16 subnormal, CodeVec codes) {
  const __m512i code = _mm512_srli_epi16(codes.v, 8 * kByte);
  const __m512i magnitude = _mm512_and_si512(code, _mm512_set1_epi16(0x7f));
  const __m512i sign = _mm512_slli_epi16(_mm512_and_si512(code, _mm512_set1_epi16(0x80)), 8);
  const __m512i normal =
      _mm512_add_epi16(_mm512_slli_epi16(magnitude, 4), _mm512_set1_epi16(0x3c00));
  const __mmask32 small = _mm512_cmplt_epi16_mask(magnitude, _mm512_set1_epi16(8));
  return {
      _mm512_or_si512(_mm512_mask_permutexvar_epi16(normal, small, magnitude, subnormal.v), sign)};
}
inline PairVec PairOf(Vec even, Vec odd) {
  return {_mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(_mm512_castps_si512(even.v), 16),
                                  _mm512_castps_si512(odd.v))};
}
inline Vec LoadF16(const void* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)))};
}
inline Vec LoadSignedBytes(const void* p) {
  return {
      _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))))};
}
inline Vec LoadPowersOf2(const void* p) {
  const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  return {_mm512_castsi512_ps(
      _mm512_max_epi32(_mm512_slli_epi32(bytes, 23), _mm512_set1_epi32(0x400000)))};
}

// a * 2^n for integral n within +-300, gradual underflow included.
inline Vec ScaleByPowerOf2(Vec a, Vec n) { return {_mm512_scalef_ps(a.v, n.v)}; }
inline Vec RoundToInteger(Vec a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}

}  // namespace troupe::TROUPE_ISA

#endif  // TROUPE_KERNELS_SIMD_VEC_AVX512_H_
