#include "base/check.h"
#include "kernels/cuda/context.cuh"
#include "kernels/head_gate/head_gate.cuh"
#include "kernels/head_gate/head_gate_cuda.h"

namespace troupe {

void HeadGateCuda(const HeadGateParams& params, const CudaContext& context) {
  CHECK_EQ(params.gate_logits.cols, params.heads);
  if (params.batch.tokens == 0) return;
  const size_t shared_bytes = static_cast<size_t>(params.heads) * (sizeof(float) + 2 * sizeof(int));
  HeadGateKernel<<<static_cast<unsigned>(params.batch.tokens), kHeadGateThreads, shared_bytes,
                   context.stream>>>(params);
}

}  // namespace troupe
