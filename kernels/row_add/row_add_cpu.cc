#include "kernels/row_add/row_add_cpu.h"

namespace troupe {

void RowAddCpu(const RowAddParams& params, const CpuContext& context) {
  const auto add = [&](WorkRange range) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      const float* from = params.x.f32(i);
      float* to = params.out.f32(params.row[i]);
      for (int64_t c = 0; c < params.x.cols; ++c) to[c] += from[c];
    }
  };
  context.pool.ParallelFor(params.x.rows, RowsPerTask(params.x.cols), add);
}

}  // namespace troupe
