#include "kernels/kv_write/kv_write_cpu.h"

#include "base/check.h"
#include "kernels/kv_write/kv_write_kernel.h"

namespace troupe {

void KvWriteCpu(const KvWriteParams& params, const CpuContext& context) {
  CHECK_EQ(params.k.cols, int64_t{params.k_stream.kv_heads} * params.k_stream.head_dim);
  CHECK_EQ(params.v.cols, int64_t{params.v_stream.kv_heads} * params.v_stream.head_dim);
  context.pool.ParallelFor(
      params.batch.tokens, RowsPerTask(params.k.cols + params.v.cols),
      [&](WorkRange range) { kKvWriteTokens[context.isa](params, range.begin, range.end); });
}

}  // namespace troupe
