// Sine and cosine of vectors, from the primitives of one instruction set; part of kernels/simd, for
// sources that want it beside kernels/simd/simd.h.
#ifndef TROUPE_KERNELS_SIMD_SINCOS_H_
#define TROUPE_KERNELS_SIMD_SINCOS_H_

#include "kernels/simd/simd.h"

namespace troupe::TROUPE_ISA {

struct SinCosVec {
  Vec sin;
  Vec cos;
};

// Within 2e-7 of the exact values for |x| up to 2^22: x = n pi / 2 + r with |r| a little over pi /
// 4 at most, pi / 2 in three parts, and Taylor series up to r^9 and r^10.
inline SinCosVec SinCos(Vec x) {
  const Vec n = RoundToInteger(x * Set1(0.636619772367581343f));
  Vec r = Fma(n, Set1(-1.57079637050628662f), x);
  r = Fma(n, Set1(4.37113882867379e-8f), r);
  r = Fma(n, Set1(1.71512451000588e-15f), r);
  const Vec square = r * r;

  Vec s = Set1(1.0f / 362880.0f);
  s = Fma(s, square, Set1(-1.0f / 5040.0f));
  s = Fma(s, square, Set1(1.0f / 120.0f));
  s = Fma(s, square, Set1(-1.0f / 6.0f));
  s = Fma(s * square, r, r);
  Vec c = Set1(-1.0f / 3628800.0f);
  c = Fma(c, square, Set1(1.0f / 40320.0f));
  c = Fma(c, square, Set1(-1.0f / 720.0f));
  c = Fma(c, square, Set1(1.0f / 24.0f));
  c = Fma(c, square, Set1(-0.5f));
  c = Fma(c, square, Set1(1.0f));

  // n mod 4 as two bits, each 0 or 1: products with them are exact, so they choose.
  const Vec one = Set1(1.0f);
  const Vec quadrant = n - Set1(4.0f) * RoundToInteger(n * Set1(0.25f) - Set1(0.375f));
  const Vec high = RoundToInteger(quadrant * Set1(0.5f) - Set1(0.25f));
  const Vec low = quadrant - high - high;
  const Vec differ = high + low - Set1(2.0f) * high * low;
  const Vec sine = (one - low) * s + low * c;
  const Vec cosine = (one - low) * c + low * s;
  return {sine * (one - high - high), cosine * (one - differ - differ)};
}

}  // namespace troupe::TROUPE_ISA

#endif  // TROUPE_KERNELS_SIMD_SINCOS_H_
