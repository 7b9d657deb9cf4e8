#ifndef TROUPE_KERNELS_MOE_EXPERTS_MOE_EXPERTS_CUDA_H_
#define TROUPE_KERNELS_MOE_EXPERTS_MOE_EXPERTS_CUDA_H_

#include "kernels/moe_experts/moe_experts.h"

namespace troupe {

struct CudaContext;

void MoeExpertsCuda(const MoeExpertsParams& params, const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_EXPERTS_MOE_EXPERTS_CUDA_H_
