#ifndef TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_KERNEL_H_
#define TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_KERNEL_H_

#include "kernels/moe_route/moe_route.h"
#include "kernels/simd/dispatch.h"

namespace troupe {

// Experts and weights of the rows [begin, end); `scratch` holds 2 * E + groups floats.
TROUPE_DECLARE_KERNEL(MoeRouteRows, const MoeRouteParams& params, int64_t begin, int64_t end,
                      float* scratch);

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_KERNEL_H_
