#include "base/check.h"
#include "kernels/cuda/context.cuh"
#include "kernels/head_norm_rope/head_norm_rope.cuh"
#include "kernels/head_norm_rope/head_norm_rope_cuda.h"

namespace troupe {

void HeadNormRopeCuda(const HeadNormRopeParams& params, const CudaContext& context) {
  CHECK_EQ(params.x.cols, static_cast<int64_t>(params.heads) * params.head_dim);
  if (params.inverse_frequency != nullptr) CHECK_EQ(params.head_dim % 2, 0);
  const int64_t threads = params.x.rows * params.heads * kWarpSize;
  if (threads == 0) return;
  HeadNormRopeKernel<<<static_cast<unsigned>(CeilDiv(threads, kHeadNormRopeThreads)),
                       kHeadNormRopeThreads, 0, context.stream>>>(params);
}

}  // namespace troupe
