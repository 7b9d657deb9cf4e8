#ifndef TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_KERNEL_H_
#define TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_KERNEL_H_

#include "kernels/head_norm_rope/head_norm_rope.h"
#include "kernels/simd/dispatch.h"

namespace troupe {

// Tokens [begin, end). `scratch`: D floats, unused without rotation.
TROUPE_DECLARE_KERNEL(HeadNormRopeTokens, const HeadNormRopeParams& params, int64_t begin,
                      int64_t end, float* scratch);

}  // namespace troupe

#endif  // TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_KERNEL_H_
