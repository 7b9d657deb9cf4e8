// AVX2 with FMA; included by kernels/simd/simd.h, which documents it.
#ifndef TROUPE_KERNELS_SIMD_VEC_AVX2_H_
#define TROUPE_KERNELS_SIMD_VEC_AVX2_H_

#include <immintrin.h>

#include <cstdint>

#include "kernels/bf16.h"

namespace troupe::TROUPE_ISA {

inline constexpr int kLanes = 8;
inline constexpr int kMaxTileVecs = 12;

struct Vec {
  __m256 v;
};
struct PairVec {
  __m256i v;
};

inline Vec Zero() { return {_mm256_setzero_ps()}; }
inline Vec Set1(float x) { return {_mm256_set1_ps(x)}; }
inline Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Vec Fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec Max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Vec Min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
inline Vec Sqrt(Vec a) { return {_mm256_sqrt_ps(a.v)}; }

inline float Sum(Vec a) {
  const __m128 half = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  const __m128 quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(quarter, _mm_movehdup_ps(quarter)));
}
inline float ReduceMax(Vec a) {
  const __m128 half = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  const __m128 quarter = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(quarter, _mm_movehdup_ps(quarter)));
}

inline __m256i FirstLanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

inline Vec Load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline Vec Load(const float* p, int n) { return {_mm256_maskload_ps(p, FirstLanes(n))}; }
inline void Store(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }
inline void Store(float* p, Vec a, int n) { _mm256_maskstore_ps(p, FirstLanes(n), a.v); }

inline Vec WidenBf16(__m128i bits) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))};
}
inline Vec Load(const Bf16* p) {
  return WidenBf16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Vec Load(const Bf16* p, int n) {
  __m128i bits = _mm_setzero_si128();
  __builtin_memcpy(&bits, p, static_cast<unsigned>(n) * sizeof(Bf16));
  return WidenBf16(bits);
}

inline __m128i NarrowBf16(Vec a) {
  const __m256i bits = _mm256_castps_si256(a.v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256 nan = _mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q);
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i chosen = _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(nan));
  const __m256i upper = _mm256_srli_epi32(chosen, 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
}
inline void Store(Bf16* p, Vec a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), NarrowBf16(a));
}
inline void Store(Bf16* p, Vec a, int n) {
  const __m128i bits = NarrowBf16(a);
  __builtin_memcpy(p, &bits, static_cast<unsigned>(n) * sizeof(Bf16));
}

inline PairVec LoadPairs(const Bf16* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
}
inline PairVec Set1Pair(const Bf16* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, sizeof(pair));
  return {_mm256_set1_epi32(pair)};
}
inline Vec Low(PairVec a) { return {_mm256_castsi256_ps(_mm256_slli_epi32(a.v, 16))}; }
inline Vec High(PairVec a) {
  return {_mm256_castsi256_ps(
      _mm256_and_si256(a.v, _mm256_set1_epi32(static_cast<int32_t>(0xffff0000))))};
}

inline constexpr bool kNativeDotPairs = false;
inline Vec DotPairs(PairVec a, PairVec b, Vec c) {
  return Fma(Low(a), Low(b), Fma(High(a), High(b), c));
}

inline Vec PowerOf2(__m256i n) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23))};
}
// In two factors, each a normal number, so that the result may be subnormal.
inline Vec ScaleByPowerOf2(Vec a, Vec n) {
  const __m256i whole = _mm256_cvtps_epi32(n.v);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  return a * PowerOf2(half) * PowerOf2(_mm256_sub_epi32(whole, half));
}
inline Vec RoundToInteger(Vec a) {
  return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}

}  // namespace troupe::TROUPE_ISA

#endif  // TROUPE_KERNELS_SIMD_VEC_AVX2_H_
