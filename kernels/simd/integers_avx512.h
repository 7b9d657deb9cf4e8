// AVX-512 with or without VNNI; included by kernels/simd/integers.h, which documents it.
#ifndef TROUPE_KERNELS_SIMD_INTEGERS_AVX512_H_
#define TROUPE_KERNELS_SIMD_INTEGERS_AVX512_H_

#include <immintrin.h>

#include <cstdint>

#include "kernels/simd/vec_avx512.h"

namespace troupe::TROUPE_ISA {

// As lanes: GCC 12 copies accumulators of type __m512i in each round of a loop.
struct IntVec {
  int32_t v __attribute__((vector_size(64)));

  __m512i bits() const { return reinterpret_cast<__m512i>(v); }
};
inline IntVec AsInts(__m512i bits) { return {reinterpret_cast<__v16si>(bits)}; }
inline IntVec Set1Int(int32_t x) { return AsInts(_mm512_set1_epi32(x)); }
inline Vec ToFloats(IntVec a) { return {_mm512_cvtepi32_ps(a.bits())}; }
inline CodeVec Set1Word(const int8_t* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof(word));
  return {_mm512_set1_epi32(word)};
}
inline CodeVec LowNibbles(CodeVec codes) {
  return {_mm512_and_si512(codes.v, _mm512_set1_epi8(15))};
}
inline CodeVec HighNibbles(CodeVec codes) {
  return {_mm512_and_si512(_mm512_srli_epi16(codes.v, 4), _mm512_set1_epi8(15))};
}
#ifdef __AVX512VNNI__
inline constexpr int kByteOffset = 128;
inline CodeVec OffsetBytes(CodeVec codes) {
  return {_mm512_xor_si512(codes.v, _mm512_set1_epi8(-128))};
}
inline IntVec DotBytes(CodeVec offset, CodeVec x, IntVec c) {
  return AsInts(_mm512_dpbusd_epi32(c.bits(), offset.v, x.v));
}
inline IntVec DotNibbles(CodeVec low, CodeVec high, CodeVec x_low, CodeVec x_high, IntVec c) {
  return DotBytes(high, x_high, DotBytes(low, x_low, c));
}
#else
inline constexpr int kByteOffset = 0;
inline CodeVec OffsetBytes(CodeVec codes) { return codes; }
// Sums of 2 products saturate at 16 bits: magnitudes up to 128 times 127, twice, stay below.
inline IntVec DotBytes(CodeVec offset, CodeVec x, IntVec c) {
  const __m512i signed_x =
      _mm512_mask_sub_epi8(x.v, _mm512_movepi8_mask(offset.v), _mm512_setzero_si512(), x.v);
  const __m512i pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(offset.v), signed_x);
  return AsInts(_mm512_add_epi32(c.bits(), _mm512_madd_epi16(pairs, _mm512_set1_epi16(1))));
}
// Four products of at most 15 times 127 fit 16 bits.
inline IntVec DotNibbles(CodeVec low, CodeVec high, CodeVec x_low, CodeVec x_high, IntVec c) {
  const __m512i pairs = _mm512_add_epi16(_mm512_maddubs_epi16(low.v, x_low.v),
                                         _mm512_maddubs_epi16(high.v, x_high.v));
  return AsInts(_mm512_add_epi32(c.bits(), _mm512_madd_epi16(pairs, _mm512_set1_epi16(1))));
}
#endif
template <bool kForNibbles>
inline void StoreBytes(int8_t* p, Vec a) {
  __m128i bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(a.v));
  if constexpr (kForNibbles) {
    bytes = _mm_shuffle_epi8(bytes,
                             _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15));
  }
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}

}  // namespace troupe::TROUPE_ISA

#endif  // TROUPE_KERNELS_SIMD_INTEGERS_AVX512_H_
