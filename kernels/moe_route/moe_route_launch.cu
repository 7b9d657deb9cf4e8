#include "base/check.h"
#include "kernels/cuda/context.cuh"
#include "kernels/moe_route/moe_route.cuh"
#include "kernels/moe_route/moe_route_cuda.h"

namespace troupe {

void MoeRouteCuda(const MoeRouteParams& params, const CudaContext& context) {
  CHECK_LE(params.top_k, params.logits.cols);
  if (params.logits.rows == 0) return;
  const size_t shared_bytes = 2 * static_cast<size_t>(params.logits.cols) * sizeof(float);
  MoeRouteKernel<<<static_cast<unsigned>(params.logits.rows), kWarpSize, shared_bytes,
                   context.stream>>>(params);
}

}  // namespace troupe
