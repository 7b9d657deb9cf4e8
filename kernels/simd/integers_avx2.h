// AVX2; included by kernels/simd/integers.h, which documents it.
#ifndef TROUPE_KERNELS_SIMD_INTEGERS_AVX2_H_
#define TROUPE_KERNELS_SIMD_INTEGERS_AVX2_H_

#include <immintrin.h>

#include <cstdint>

#include "kernels/simd/vec_avx2.h"

namespace troupe::TROUPE_ISA {

// As lanes: GCC 12 copies accumulators of type __m256i in each round of a loop.
struct IntVec {
  int32_t v __attribute__((vector_size(32)));

  __m256i bits() const { return reinterpret_cast<__m256i>(v); }
};
inline IntVec AsInts(__m256i bits) { return {reinterpret_cast<__v8si>(bits)}; }
inline IntVec Set1Int(int32_t x) { return AsInts(_mm256_set1_epi32(x)); }
inline Vec ToFloats(IntVec a) { return {_mm256_cvtepi32_ps(a.bits())}; }
inline CodeVec Set1Word(const int8_t* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof(word));
  return {_mm256_set1_epi32(word)};
}
inline CodeVec LowNibbles(CodeVec codes) {
  return {_mm256_and_si256(codes.v, _mm256_set1_epi8(15))};
}
inline CodeVec HighNibbles(CodeVec codes) {
  return {_mm256_and_si256(_mm256_srli_epi16(codes.v, 4), _mm256_set1_epi8(15))};
}
inline constexpr int kByteOffset = 0;
inline CodeVec OffsetBytes(CodeVec codes) { return codes; }
// Sums of 2 products saturate at 16 bits: magnitudes up to 128 times 127, twice, stay below.
inline IntVec DotBytes(CodeVec offset, CodeVec x, IntVec c) {
  const __m256i pairs =
      _mm256_maddubs_epi16(_mm256_abs_epi8(offset.v), _mm256_sign_epi8(x.v, offset.v));
  return AsInts(_mm256_add_epi32(c.bits(), _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))));
}
// Four products of at most 15 times 127 fit 16 bits.
inline IntVec DotNibbles(CodeVec low, CodeVec high, CodeVec x_low, CodeVec x_high, IntVec c) {
  const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(low.v, x_low.v),
                                         _mm256_maddubs_epi16(high.v, x_high.v));
  return AsInts(_mm256_add_epi32(c.bits(), _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))));
}
template <bool kForNibbles>
inline void StoreBytes(int8_t* p, Vec a) {
  const __m256i words = _mm256_cvtps_epi32(a.v);
  const __m128i halves =
      _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  __m128i bytes = _mm_packs_epi16(halves, halves);
  if constexpr (kForNibbles) bytes = _mm_unpacklo_epi8(bytes, _mm_srli_si128(bytes, 4));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), bytes);
}

}  // namespace troupe::TROUPE_ISA

#endif  // TROUPE_KERNELS_SIMD_INTEGERS_AVX2_H_
