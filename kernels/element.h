// Elements of tensors whose dtype is known only at run time: for references, tests and set-up code.
// Loops that matter take the dtype as a template parameter and use kernels/simd.
#ifndef TROUPE_KERNELS_ELEMENT_H_
#define TROUPE_KERNELS_ELEMENT_H_

#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/tensor.h"

namespace troupe {

inline float RoundToBf16(float value) { return ToF32(ToBf16(value)); }

inline float LoadElement(const void* data, DType dtype, int64_t index) {
  return dtype == DType::kF32 ? static_cast<const float*>(data)[index]
                              : ToF32(static_cast<const Bf16*>(data)[index]);
}

inline void StoreElement(void* data, DType dtype, int64_t index, float value) {
  if (dtype == DType::kF32) {
    static_cast<float*>(data)[index] = value;
  } else {
    static_cast<Bf16*>(data)[index] = ToBf16(value);
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_ELEMENT_H_
