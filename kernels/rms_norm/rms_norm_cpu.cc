#include "kernels/rms_norm/rms_norm_cpu.h"

#include "kernels/rms_norm/rms_norm_kernel.h"

namespace troupe {

void RmsNormCpu(const RmsNormParams& params, const CpuContext& context) {
  const auto rows = kRmsNormRows[context.isa];
  context.pool.ParallelFor(params.x.rows, RowsPerTask(params.x.cols),
                           [&](WorkRange range) { rows(params, range.begin, range.end); });
}

void SquareSumsCpu(const SquareSumsParams& params, const CpuContext& context) {
  const auto rows = kSquareSumRows[context.isa];
  context.pool.ParallelFor(params.x.rows, RowsPerTask(params.x.cols),
                           [&](WorkRange range) { rows(params, range.begin, range.end); });
}

}  // namespace troupe
