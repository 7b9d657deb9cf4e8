#ifndef TROUPE_KERNELS_SWIGLU_SWIGLU_KERNEL_H_
#define TROUPE_KERNELS_SWIGLU_SWIGLU_KERNEL_H_

#include "kernels/simd/dispatch.h"
#include "kernels/swiglu/swiglu.h"

namespace troupe {

// Rows [begin, end).
TROUPE_DECLARE_KERNEL(SwigluRows, const SwigluParams& params, int64_t begin, int64_t end);

}  // namespace troupe

#endif  // TROUPE_KERNELS_SWIGLU_SWIGLU_KERNEL_H_
