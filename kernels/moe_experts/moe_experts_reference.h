// The oracle of kernels/moe_experts/moe_experts.h: the formula as it is written there, slow and
// simple.
#ifndef TROUPE_KERNELS_MOE_EXPERTS_MOE_EXPERTS_REFERENCE_H_
#define TROUPE_KERNELS_MOE_EXPERTS_MOE_EXPERTS_REFERENCE_H_

#include "kernels/moe_experts/moe_experts.h"

namespace troupe {

void MoeExpertsReference(const MoeExpertsParams& params);

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_EXPERTS_MOE_EXPERTS_REFERENCE_H_
