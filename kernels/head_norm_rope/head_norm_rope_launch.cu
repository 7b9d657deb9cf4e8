#include "base/check.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/head_norm_rope/head_norm_rope.cuh"
#include "kernels/head_norm_rope/head_norm_rope_cuda.h"

namespace troupe {

HeadNormRopeParams ResolvedHeadNormRope(const HeadNormRopeParams& params) {
  CHECK_EQ(params.x.cols, static_cast<int64_t>(params.heads) * params.head_dim);
  HeadNormRopeParams resolved = params;
  if (params.inverse_frequency != nullptr) {
    resolved.rotated_dims = params.RotatedDims();
    CHECK_EQ(resolved.rotated_dims % 2, 0);
    CHECK_LE(params.first_rotated + resolved.rotated_dims, params.head_dim);
  }
  return resolved;
}

void HeadNormRopeCuda(const HeadNormRopeParams& params, const CudaContext& context) {
  const HeadNormRopeParams resolved = ResolvedHeadNormRope(params);
  const int64_t threads = params.x.rows * params.heads * kWarpSize;
  if (threads == 0) return;
  Launch(HeadNormRopeKernel,
         {.grid = static_cast<unsigned>(CeilDiv(threads, kHeadNormRopeThreads)),
          .threads = kHeadNormRopeThreads},
         context, resolved);
}

}  // namespace troupe
