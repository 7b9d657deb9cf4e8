#ifndef TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_CPU_H_
#define TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_CPU_H_

#include "kernels/cpu_context.h"
#include "kernels/moe_route/moe_route.h"

namespace troupe {

void MoeRouteCpu(const MoeRouteParams& params, const CpuContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_CPU_H_
