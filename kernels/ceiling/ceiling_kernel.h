#ifndef TROUPE_KERNELS_CEILING_CEILING_KERNEL_H_
#define TROUPE_KERNELS_CEILING_CEILING_KERNEL_H_

#include <cstdint>

#include "kernels/linear/linear.h"
#include "kernels/simd/dispatch.h"

namespace troupe {

// Multiply-adds that depend on nothing but registers; adds their number to `multiply_adds`.
TROUPE_DECLARE_VNNI_KERNEL(SpinMultiplyAdds, Precision precision, int64_t rounds,
                           int64_t& multiply_adds);

// Reads `count` floats, a multiple of 64, and adds something of them to `sum`.
TROUPE_DECLARE_VNNI_KERNEL(ReadFloats, const float* values, int64_t count, float& sum);

}  // namespace troupe

#endif  // TROUPE_KERNELS_CEILING_CEILING_KERNEL_H_
