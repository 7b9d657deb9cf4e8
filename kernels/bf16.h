// Scalar bfloat16 conversions, and elements of tensors whose dtype is known only at run time.
//
// For references, tests and set-up code; loops that matter use kernels/simd.
#ifndef TROUPE_KERNELS_BF16_H_
#define TROUPE_KERNELS_BF16_H_

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/tensor.h"

namespace troupe {

inline float FloatFromBf16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// Rounds to nearest, ties to even; a NaN stays one.
inline uint16_t Bf16FromFloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float RoundToBf16(float value) { return FloatFromBf16(Bf16FromFloat(value)); }

inline float LoadElement(const void* data, DType dtype, int64_t index) {
  return dtype == DType::kF32 ? static_cast<const float*>(data)[index]
                              : FloatFromBf16(static_cast<const uint16_t*>(data)[index]);
}

inline void StoreElement(void* data, DType dtype, int64_t index, float value) {
  if (dtype == DType::kF32) {
    static_cast<float*>(data)[index] = value;
  } else {
    static_cast<uint16_t*>(data)[index] = Bf16FromFloat(value);
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_BF16_H_
