#ifndef TROUPE_KERNELS_HEAD_GATE_HEAD_GATE_CUDA_H_
#define TROUPE_KERNELS_HEAD_GATE_HEAD_GATE_CUDA_H_

#include "kernels/head_gate/head_gate.h"

namespace troupe {

struct CudaContext;

void HeadGateCuda(const HeadGateParams& params, const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_HEAD_GATE_HEAD_GATE_CUDA_H_
