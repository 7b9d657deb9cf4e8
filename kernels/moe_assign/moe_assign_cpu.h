#ifndef TROUPE_KERNELS_MOE_ASSIGN_MOE_ASSIGN_CPU_H_
#define TROUPE_KERNELS_MOE_ASSIGN_MOE_ASSIGN_CPU_H_

#include "kernels/moe_assign/moe_assign.h"

namespace troupe {

void MoeAssignCpu(const MoeAssignParams& params);

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_ASSIGN_MOE_ASSIGN_CPU_H_
