#include "kernels/embed/embed_cpu.h"

#include "kernels/embed/embed_kernel.h"

namespace troupe {

void EmbedCpu(const EmbedParams& params, const CpuContext& context) {
  const auto rows = kEmbedRows[context.isa];
  context.pool.ParallelFor(params.out.rows, RowsPerTask(params.out.cols),
                           [&](WorkRange range) { rows(params, range.begin, range.end); });
}

}  // namespace troupe
