#include "kernels/cuda/context.cuh"
#include "kernels/moe_assign/moe_assign.cuh"
#include "kernels/moe_assign/moe_assign_cuda.h"

namespace troupe {

void MoeAssignCuda(const MoeAssignParams& params, const CudaContext& context) {
  const int pairs = params.tokens * params.top_k;
  if (pairs == 0) return;
  const auto blocks = static_cast<unsigned>(CeilDiv(pairs, kMoeAssignThreads));
  MoeAssignKernel<<<blocks, kMoeAssignThreads, 0, context.stream>>>(params);
}

}  // namespace troupe
