#include "kernels/swiglu/swiglu_cpu.h"

#include "kernels/swiglu/swiglu_kernel.h"

namespace troupe {

void SwigluCpu(const SwigluParams& params, const CpuContext& context) {
  const auto rows = kSwigluRows[context.isa];
  context.pool.ParallelFor(params.out.rows, RowsPerTask(params.gate_up.cols),
                           [&](WorkRange range) { rows(params, range.begin, range.end); });
}

}  // namespace troupe
