#include "kernels/page_copy/page_copy_cpu.h"

#include <cstring>

namespace troupe {

void PageCopyCpu(const PageCopyParams& params, const CpuContext& context) {
  const int64_t grain = RowsPerTask(params.page_bytes / static_cast<int64_t>(sizeof(float)));
  context.pool.ParallelFor(params.count, grain, [&](WorkRange range) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      std::memcpy(params.pages + params.to[i] * params.page_bytes,
                  params.pages + params.from[i] * params.page_bytes,
                  static_cast<size_t>(params.page_bytes));
    }
  });
}

}  // namespace troupe
