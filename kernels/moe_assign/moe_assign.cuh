// Device code of kernels/moe_assign/moe_assign.h: one thread a choice.
#ifndef TROUPE_KERNELS_MOE_ASSIGN_MOE_ASSIGN_CUH_
#define TROUPE_KERNELS_MOE_ASSIGN_MOE_ASSIGN_CUH_

#include "kernels/moe_assign/moe_assign.h"

namespace troupe {

inline constexpr int kMoeAssignThreads = 256;

__global__ void __launch_bounds__(kMoeAssignThreads) MoeAssignKernel(MoeAssignParams params) {
  const int pair = static_cast<int>(blockIdx.x) * kMoeAssignThreads + static_cast<int>(threadIdx.x);
  if (pair >= params.tokens * params.top_k) return;
  const int first = params.begin[params.chosen[pair]];
  const int copies = params.begin[params.chosen[pair] + 1] - first;
  params.assigned[pair] = params.local[first + params.position[pair / params.top_k] % copies];
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_ASSIGN_MOE_ASSIGN_CUH_
