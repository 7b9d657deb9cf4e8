#ifndef TROUPE_KERNELS_RMS_NORM_RMS_NORM_KERNEL_H_
#define TROUPE_KERNELS_RMS_NORM_RMS_NORM_KERNEL_H_

#include "kernels/rms_norm/rms_norm.h"
#include "kernels/simd/dispatch.h"

namespace troupe {

// Rows [begin, end).
TROUPE_DECLARE_KERNEL(RmsNormRows, const RmsNormParams& params, int64_t begin, int64_t end);
TROUPE_DECLARE_KERNEL(SquareSumRows, const SquareSumsParams& params, int64_t begin, int64_t end);

}  // namespace troupe

#endif  // TROUPE_KERNELS_RMS_NORM_RMS_NORM_KERNEL_H_
