// The oracle of kernels/moe_assign/moe_assign.h: the formula as it is written there.
#ifndef TROUPE_KERNELS_MOE_ASSIGN_MOE_ASSIGN_REFERENCE_H_
#define TROUPE_KERNELS_MOE_ASSIGN_MOE_ASSIGN_REFERENCE_H_

#include "kernels/moe_assign/moe_assign.h"

namespace troupe {

void MoeAssignReference(const MoeAssignParams& params);

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_ASSIGN_MOE_ASSIGN_REFERENCE_H_
