// Transposition of a square of kLanes x kLanes 32-bit elements in registers; part of
// kernels/simd, for sources that want it beside kernels/simd/simd.h.
#ifndef TROUPE_KERNELS_SIMD_TRANSPOSE_H_
#define TROUPE_KERNELS_SIMD_TRANSPOSE_H_

#include "kernels/simd/simd.h"

namespace troupe::TROUPE_ISA {

#if defined(__AVX512F__)

inline void Transpose(Vec (&m)[16]) {
  __m512 a[16];
  __m512 b[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    a[2 * i] = _mm512_unpacklo_ps(m[2 * i].v, m[2 * i + 1].v);
    a[2 * i + 1] = _mm512_unpackhi_ps(m[2 * i].v, m[2 * i + 1].v);
  }
  // b[4 * i + j], 128-bit lane l: column 4 * l + j of the rows 4 * i .. 4 * i + 3.
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    const auto pairs = [](__m512 x) { return _mm512_castps_pd(x); };
    b[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(pairs(a[i]), pairs(a[i + 2])));
    b[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(pairs(a[i]), pairs(a[i + 2])));
    b[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(pairs(a[i + 1]), pairs(a[i + 3])));
    b[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(pairs(a[i + 1]), pairs(a[i + 3])));
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512 even_low = _mm512_shuffle_f32x4(b[j], b[4 + j], 0x88);
    const __m512 odd_low = _mm512_shuffle_f32x4(b[j], b[4 + j], 0xdd);
    const __m512 even_high = _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0x88);
    const __m512 odd_high = _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0xdd);
    m[j].v = _mm512_shuffle_f32x4(even_low, even_high, 0x88);
    m[4 + j].v = _mm512_shuffle_f32x4(odd_low, odd_high, 0x88);
    m[8 + j].v = _mm512_shuffle_f32x4(even_low, even_high, 0xdd);
    m[12 + j].v = _mm512_shuffle_f32x4(odd_low, odd_high, 0xdd);
  }
}

inline Vec BitsOf(PairVec a) { return {_mm512_castsi512_ps(a.v)}; }
inline PairVec PairsOf(Vec a) { return {_mm512_castps_si512(a.v)}; }

#else

inline void Transpose(Vec (&m)[8]) {
  __m256 a[8];
  __m256 b[8];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    a[2 * i] = _mm256_unpacklo_ps(m[2 * i].v, m[2 * i + 1].v);
    a[2 * i + 1] = _mm256_unpackhi_ps(m[2 * i].v, m[2 * i + 1].v);
  }
  // b[4 * i + j], 128-bit lane l: column 4 * l + j of the rows 4 * i .. 4 * i + 3.
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
    b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
    b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
    b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    m[j].v = _mm256_permute2f128_ps(b[j], b[4 + j], 0x20);
    m[4 + j].v = _mm256_permute2f128_ps(b[j], b[4 + j], 0x31);
  }
}

inline Vec BitsOf(PairVec a) { return {_mm256_castsi256_ps(a.v)}; }
inline PairVec PairsOf(Vec a) { return {_mm256_castps_si256(a.v)}; }

#endif

}  // namespace troupe::TROUPE_ISA

#endif  // TROUPE_KERNELS_SIMD_TRANSPOSE_H_
