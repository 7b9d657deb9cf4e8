#include "kernels/head_gate/head_gate_cpu.h"

#include "base/check.h"
#include "kernels/head_gate/head_gate_kernel.h"

namespace troupe {

void HeadGateCpu(const HeadGateParams& params, const CpuContext& context) {
  CHECK_EQ(params.gate_logits.cols, params.heads);
  CHECK_LE(params.heads, kMaxGatedHeads);
  // An exponential is worth many plain reads.
  constexpr int64_t kCostOfSigmoid = 8;
  const int64_t columns = int64_t{params.heads} * (1 + params.branches) * kCostOfSigmoid;
  context.pool.ParallelFor(params.batch.tokens, RowsPerTask(columns), [&](WorkRange range) {
    kHeadGateTokens[context.isa](params, range.begin, range.end);
  });
}

}  // namespace troupe
