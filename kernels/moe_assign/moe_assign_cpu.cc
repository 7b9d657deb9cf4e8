#include "kernels/moe_assign/moe_assign_cpu.h"

namespace troupe {

void MoeAssignCpu(const MoeAssignParams& params) {
  const int32_t* chosen = params.chosen;
  int32_t* assigned = params.assigned;
  for (int t = 0; t < params.tokens; ++t) {
    for (int k = 0; k < params.top_k; ++k, ++chosen, ++assigned) {
      const int32_t* range = params.begin + *chosen;
      *assigned = params.local[range[0] + params.position[t] % (range[1] - range[0])];
    }
  }
}

}  // namespace troupe
