#include "kernels/moe_assign/moe_assign_reference.h"

namespace troupe {

void MoeAssignReference(const MoeAssignParams& params) {
  for (int t = 0; t < params.tokens; ++t) {
    for (int k = 0; k < params.top_k; ++k) {
      const int pair = t * params.top_k + k;
      const int expert = params.chosen[pair];
      const int copies = params.begin[expert + 1] - params.begin[expert];
      const int copy = params.begin[expert] + params.position[t] % copies;
      params.assigned[pair] = params.local[copy];
    }
  }
}

}  // namespace troupe
