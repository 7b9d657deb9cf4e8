#include "kernels/moe_route/moe_route_cpu.h"

#include "kernels/moe_route/moe_route_kernel.h"

namespace troupe {

void MoeRouteCpu(const MoeRouteParams& params, const CpuContext& context) {
  const int64_t tokens = params.logits.rows;
  const int64_t experts = params.logits.cols;
  const int64_t stride = 2 * experts + params.groups;
  float* scratch = context.scratch.Take<float>(context.pool.threads() * stride);
  const auto rows = kMoeRouteRows[context.isa];
  // Each choice is one more pass over the scores.
  context.pool.ParallelFor(tokens, RowsPerTask(experts * (4 + params.top_k)), [&](WorkRange range) {
    rows(params, range.begin, range.end, scratch + range.worker * stride);
  });
  if (params.load == nullptr) return;
  for (int64_t i = 0; i < tokens * params.top_k; ++i) ++params.load[params.experts[i]];
}

}  // namespace troupe
