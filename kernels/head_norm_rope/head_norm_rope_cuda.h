#ifndef TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_CUDA_H_
#define TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_CUDA_H_

#include "kernels/head_norm_rope/head_norm_rope.h"

namespace troupe {

struct CudaContext;

// The same, checked, with every size filled in.
HeadNormRopeParams ResolvedHeadNormRope(const HeadNormRopeParams& params);

void HeadNormRopeCuda(const HeadNormRopeParams& params, const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_CUDA_H_
