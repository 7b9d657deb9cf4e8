// Functions of vectors, from the primitives of one instruction set; see kernels/simd/simd.h.
#ifndef TROUPE_KERNELS_SIMD_MATH_H_
#define TROUPE_KERNELS_SIMD_MATH_H_

namespace troupe::TROUPE_ISA {

// x = n ln 2 + r with |r| <= ln(2) / 2; e^r by its Taylor series, whose remainder after r^7 is
// under 2^-26 there; ln 2 in two parts, the first of so few bits that n times it is exact.
inline Vec Exp(Vec x) {
  // Beyond these e^x is infinite, or rounds to zero. NaN is kept: it is the second operand.
  x = Max(Set1(-105.0f), Min(Set1(89.0f), x));
  const Vec n = RoundToInteger(x * Set1(1.44269504088896341f));
  Vec r = Fma(n, Set1(-0.693359375f), x);
  r = Fma(n, Set1(2.12194440e-4f), r);
  Vec p = Set1(1.0f / 5040.0f);
  p = Fma(p, r, Set1(1.0f / 720.0f));
  p = Fma(p, r, Set1(1.0f / 120.0f));
  p = Fma(p, r, Set1(1.0f / 24.0f));
  p = Fma(p, r, Set1(1.0f / 6.0f));
  p = Fma(p, r, Set1(0.5f));
  p = Fma(p * r, r, r) + Set1(1.0f);
  return ScaleByPowerOf2(p, n);
}

inline Vec Sigmoid(Vec x) { return Set1(1.0f) / (Set1(1.0f) + Exp(Zero() - x)); }

inline Vec Silu(Vec x) { return x / (Set1(1.0f) + Exp(Zero() - x)); }

}  // namespace troupe::TROUPE_ISA

#endif  // TROUPE_KERNELS_SIMD_MATH_H_
