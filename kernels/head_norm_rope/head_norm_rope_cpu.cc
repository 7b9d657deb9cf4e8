#include "kernels/head_norm_rope/head_norm_rope_cpu.h"

#include "base/check.h"
#include "kernels/head_norm_rope/head_norm_rope_kernel.h"

namespace troupe {

void HeadNormRopeCpu(const HeadNormRopeParams& params, const CpuContext& context) {
  CHECK_EQ(params.x.cols, int64_t{params.heads} * params.head_dim);
  if (params.inverse_frequency != nullptr) {
    CHECK_EQ(params.RotatedDims() % 2, 0);
    CHECK_LE(params.first_rotated + params.RotatedDims(), params.head_dim);
  }
  float* scratch = context.scratch.Take<float>(int64_t{context.pool.threads()} * params.head_dim);
  context.pool.ParallelFor(params.x.rows, RowsPerTask(2 * params.x.cols), [&](WorkRange range) {
    kHeadNormRopeTokens[context.isa](params, range.begin, range.end,
                                     scratch + int64_t{range.worker} * params.head_dim);
  });
}

}  // namespace troupe
