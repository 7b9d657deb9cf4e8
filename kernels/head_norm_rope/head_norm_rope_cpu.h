#ifndef TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_CPU_H_
#define TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_CPU_H_

#include "kernels/cpu_context.h"
#include "kernels/head_norm_rope/head_norm_rope.h"

namespace troupe {

void HeadNormRopeCpu(const HeadNormRopeParams& params, const CpuContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_CPU_H_
