// AVX2 with FMA; included by kernels/simd/simd.h, which documents it.
#ifndef TROUPE_KERNELS_SIMD_VEC_AVX2_H_
#define TROUPE_KERNELS_SIMD_VEC_AVX2_H_

#include <immintrin.h>

#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/e4m3.h"

namespace troupe::TROUPE_ISA {

inline constexpr int kLanes = 8;
inline constexpr int kMaxTileVecs = 12;

struct Vec {
  __m256 v;
};
struct PairVec {
  __m256i v;
};
struct CodeVec {
  __m256i v;
};
struct Lut16 {
  __m256i low;  // bytes of the entries
  __m256i high;
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

// Subnormal codes apart: products with subnormal numbers are slow.
inline Vec WidenE4M3Codes(__m128i bytes) {
  const __m256i codes = _mm256_cvtepu8_epi32(bytes);
  const __m256i size = _mm256_and_si256(codes, _mm256_set1_epi32(0x7f));
  const __m256i sign = _mm256_slli_epi32(_mm256_xor_si256(codes, size), 24);
  const __m256 normal = _mm256_castsi256_ps(
      _mm256_add_epi32(_mm256_slli_epi32(size, 20), _mm256_set1_epi32(120 << 23)));
  const __m256 subnormal = _mm256_mul_ps(_mm256_cvtepi32_ps(size), _mm256_set1_ps(0x1p-9f));
  const __m256 small = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(8), size));
  return {_mm256_or_ps(_mm256_blendv_ps(normal, subnormal, small), _mm256_castsi256_ps(sign))};
}
inline Vec Load(const E4M3* p) {
  return WidenE4M3Codes(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
inline Vec Load(const E4M3* p, int n) {
  __m128i bytes = _mm_setzero_si128();
  __builtin_memcpy(&bytes, p, static_cast<unsigned>(n));
  return WidenE4M3Codes(bytes);
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

inline CodeVec LoadCodes(const void* p) {
  return {_mm256_loadu_si256(static_cast<const __m256i*>(p))};
}
inline Lut16 LoadLut16(const Bf16* p) {
  const __m256i entries = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i low = _mm256_and_si256(entries, _mm256_set1_epi16(0xff));
  const __m256i high = _mm256_srli_epi16(entries, 8);
  const auto pack = [](__m256i bytes) {
    // Packing works within 128-bit lanes: the lower halves of both, then the upper ones.
    return _mm256_permute4x64_epi64(_mm256_packus_epi16(bytes, bytes), 0x88);
  };
  return {pack(low), pack(high)};
}
// Entries of 16-bit lanes that hold an index.
inline PairVec Entries(Lut16 table, __m256i index) {
  // An index with its top bit set gives zero: the upper bytes of both look-ups.
  const __m256i at = _mm256_or_si256(index, _mm256_set1_epi16(static_cast<int16_t>(0x8000)));
  return {_mm256_or_si256(_mm256_shuffle_epi8(table.low, at),
                          _mm256_slli_epi16(_mm256_shuffle_epi8(table.high, at), 8))};
}
template <int kShift>
inline PairVec LookUp(Lut16 table, CodeVec codes) {
  return Entries(table,
                 _mm256_and_si256(_mm256_srli_epi16(codes.v, kShift), _mm256_set1_epi16(15)));
}
template <int kByte>
inline Vec SignedByte(CodeVec codes) {
  return {_mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(codes.v, 24 - 8 * kByte), 24))};
}
template <int kByte>
inline PairVec WidenE4M3(Lut16 subnormal, CodeVec codes) {
  const __m256i code = _mm256_srli_epi16(codes.v, 8 * kByte);
  const __m256i magnitude = _mm256_and_si256(code, _mm256_set1_epi16(0x7f));
  const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(code, _mm256_set1_epi16(0x80)), 8);
  const __m256i normal =
      _mm256_add_epi16(_mm256_slli_epi16(magnitude, 4), _mm256_set1_epi16(0x3c00));
  const __m256i small = _mm256_cmpgt_epi16(_mm256_set1_epi16(8), magnitude);
  const __m256i entries = Entries(subnormal, _mm256_and_si256(magnitude, _mm256_set1_epi16(15))).v;
  return {_mm256_or_si256(_mm256_blendv_epi8(normal, entries, small), sign)};
}
inline PairVec PairOf(Vec even, Vec odd) {
  return {_mm256_blend_epi16(_mm256_srli_epi32(_mm256_castps_si256(even.v), 16),
                             _mm256_castps_si256(odd.v), 0xaa)};
}
inline Vec LoadF16(const void* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p)))};
}
inline Vec LoadSignedBytes(const void* p) {
  return {
      _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p))))};
}
inline Vec LoadPowersOf2(const void* p) {
  const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p)));
  return {_mm256_castsi256_ps(
      _mm256_max_epi32(_mm256_slli_epi32(bytes, 23), _mm256_set1_epi32(0x400000)))};
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
