#ifndef TROUPE_KERNELS_MOE_EXPERTS_MOE_EXPERTS_CPU_H_
#define TROUPE_KERNELS_MOE_EXPERTS_MOE_EXPERTS_CPU_H_

#include "kernels/cpu_context.h"
#include "kernels/moe_experts/moe_experts.h"

namespace troupe {

void MoeExpertsCpu(const MoeExpertsParams& params, const CpuContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_EXPERTS_MOE_EXPERTS_CPU_H_
