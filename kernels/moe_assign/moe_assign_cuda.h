#ifndef TROUPE_KERNELS_MOE_ASSIGN_MOE_ASSIGN_CUDA_H_
#define TROUPE_KERNELS_MOE_ASSIGN_MOE_ASSIGN_CUDA_H_

#include "kernels/moe_assign/moe_assign.h"

namespace troupe {

struct CudaContext;

void MoeAssignCuda(const MoeAssignParams& params, const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_ASSIGN_MOE_ASSIGN_CUDA_H_
