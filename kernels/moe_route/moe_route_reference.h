// The oracle of kernels/moe_route/moe_route.h: the formula as it is written there, slow and simple.
#ifndef TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_REFERENCE_H_
#define TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_REFERENCE_H_

#include "kernels/moe_route/moe_route.h"

namespace troupe {

void MoeRouteReference(const MoeRouteParams& params);

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_REFERENCE_H_
