#include "base/check.h"
#include "kernels/cuda/context.cuh"
#include "kernels/moe_route/moe_route.cuh"
#include "kernels/moe_route/moe_route_cuda.h"

namespace troupe {

void MoeRouteCuda(const MoeRouteParams& params, const CudaContext& context) {
  CHECK_LE(params.top_k, params.logits.cols);
  CHECK_EQ(params.logits.cols % params.groups, 0);
  CHECK_LE(params.groups_chosen, params.groups);
  if (params.logits.rows == 0) return;
  const size_t floats = 2 * static_cast<size_t>(params.logits.cols) + params.groups;
  MoeRouteKernel<<<static_cast<unsigned>(params.logits.rows), kWarpSize, floats * sizeof(float),
                   context.stream>>>(params);
}

}  // namespace troupe
