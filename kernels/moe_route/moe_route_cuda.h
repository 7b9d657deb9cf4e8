#ifndef TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_CUDA_H_
#define TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_CUDA_H_

#include "kernels/moe_route/moe_route.h"

namespace troupe {

struct CudaContext;

void MoeRouteCuda(const MoeRouteParams& params, const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_CUDA_H_
