// Keys and values in FP8: rows of e4m3 codes (OCP 8-bit Floating Point Specification 1.0: sign, 4
// bits of exponent with bias 7, 3 of mantissa), each row with a power of two of its own, stored as
// E8M0 (OCP Microscaling Formats 1.0): 2^(byte - 127).
//
//     scale = the least power of two with largest / scale <= 448, within [2^-112, 2^7]
//     code  = e4m3(x / scale), to the nearest, ties to even, beyond 448 the code of 448
//
// A power of two takes no digits from a row, since dividing by it is exact, and what a code stands
// for is exact in bf16: all devices write the same bytes and read the same numbers. Numbers beyond
// 57344 become 57344. A row with an infinity or a NaN is all NaN: scale 0xff, codes zero.
//
// Thread model: pure functions. Safe in sources that are compiled once per instruction set: every
// one is always inlined. Those on bits are for device code too.
#ifndef TROUPE_KERNELS_E4M3_H_
#define TROUPE_KERNELS_E4M3_H_

#include <cstdint>

namespace troupe {

struct E4M3 {
  uint8_t bits;
};

inline constexpr uint8_t kNanScale = 0xff;
// 2^-112: what the least code stands for is still normal in bf16. 2^7: for conversions that begin
// with what has a hundred-and-twentieth power of two too little (kernels/cuda/attention_codes.cuh).
inline constexpr uint32_t kLeastScale = 127 - 112;
inline constexpr uint32_t kMostScale = 127 + 7;
inline constexpr uint32_t kMostE4M3Bits = 0x43e00000;  // 448, as f32

// The scale byte for a row: from the largest of its numbers' f32 bits without sign.
[[gnu::always_inline]] constexpr uint8_t ScaleForLargest(uint32_t largest_bits) {
  constexpr uint32_t kPowerOfMost = 8;
  if (largest_bits >= 0x7f800000U) return kNanScale;
  // One more where the mantissa is beyond that of 448 = 1.75 * 2^8.
  const uint32_t power = (largest_bits + 0x1fffffU) >> 23;
  if (power < kLeastScale + kPowerOfMost) return kLeastScale;
  return static_cast<uint8_t>(power > kMostScale + kPowerOfMost ? kMostScale
                                                                : power - kPowerOfMost);
}

// f32 bits of a scale, and of what a row is multiplied with to become codes.
[[gnu::always_inline]] constexpr uint32_t ScaleBits(uint8_t scale) {
  return scale == kNanScale ? 0x7fc00000U : static_cast<uint32_t>(scale) << 23;
}
[[gnu::always_inline]] constexpr uint32_t InverseScaleBits(uint8_t scale) {
  return (254U - scale) << 23;
}

[[gnu::always_inline]] inline float ScaleOf(uint8_t scale) {
  return __builtin_bit_cast(float, ScaleBits(scale));
}

// The code of a number that is not NaN.
[[gnu::always_inline]] inline uint8_t NearestE4M3Code(float value) {
  constexpr uint32_t kLeastNormal = (127U - 6) << 23;
  constexpr uint32_t kRebias = (127U - 7) << 3;
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  const uint32_t any = bits & 0x7fffffffU;
  const uint32_t size = any < kMostE4M3Bits ? any : kMostE4M3Bits;
  const uint32_t normal = ((size + 0x7ffffU + (size >> 20 & 1U)) >> 20) - kRebias;
  // The last place of this sum is that of subnormal codes.
  const float sum = __builtin_bit_cast(float, size) + 0x1p14F;
  const uint32_t subnormal = __builtin_bit_cast(uint32_t, sum) & 0xfU;
  return static_cast<uint8_t>((size < kLeastNormal ? subnormal : normal) | (bits >> 24 & 0x80U));
}

// Writes a row of `size` numbers; returns its scale.
[[gnu::always_inline]] inline uint8_t EncodeRow(const float* from, int size, E4M3* to) {
  uint32_t largest = 0;
  for (int c = 0; c < size; ++c) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, from[c]) & 0x7fffffffU;
    largest = bits > largest ? bits : largest;
  }
  const uint8_t scale = ScaleForLargest(largest);
  if (scale == kNanScale) {
    for (int c = 0; c < size; ++c) to[c].bits = 0;
    return scale;
  }
  const float inverse = __builtin_bit_cast(float, InverseScaleBits(scale));
  for (int c = 0; c < size; ++c) to[c].bits = NearestE4M3Code(from[c] * inverse);
  return scale;
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_E4M3_H_
