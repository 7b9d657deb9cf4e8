// bfloat16: the upper half of an IEEE single.
//
// Safe in sources that are compiled once per instruction set: every function here is always
// inlined.
#ifndef TROUPE_KERNELS_BF16_H_
#define TROUPE_KERNELS_BF16_H_

#include <cstdint>

namespace troupe {

struct Bf16 {
  uint16_t bits;
};

[[gnu::always_inline]] inline float ToF32(Bf16 value) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(value.bits) << 16);
}

[[gnu::always_inline]] inline float ToF32(float value) { return value; }

// To the nearest, ties to even; NaN stays NaN.
[[gnu::always_inline]] inline Bf16 ToBf16(float value) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return Bf16{static_cast<uint16_t>(bits >> 16 | 0x40u)};
  return Bf16{static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_BF16_H_
