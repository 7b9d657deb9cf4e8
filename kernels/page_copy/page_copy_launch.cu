#include <algorithm>

#include "kernels/cuda/context.cuh"
#include "kernels/page_copy/page_copy.cuh"
#include "kernels/page_copy/page_copy_cuda.h"

namespace troupe {

void PageCopyCuda(const PageCopyParams& params, const CudaContext& context) {
  if (params.count == 0) return;
  constexpr int64_t kMostBlocksAPage = 64;
  const auto launch = [&](auto unit) {
    const int64_t units = params.page_bytes / static_cast<int64_t>(sizeof(unit));
    const int64_t blocks =
        std::clamp<int64_t>(CeilDiv(units, kPageCopyThreads), 1, kMostBlocksAPage);
    const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(params.count));
    PageCopyKernel<decltype(unit)><<<grid, kPageCopyThreads, 0, context.stream>>>(params);
  };
  const bool aligned = params.page_bytes % static_cast<int64_t>(sizeof(uint4)) == 0 &&
                       reinterpret_cast<uintptr_t>(params.pages) % sizeof(uint4) == 0;
  if (aligned) {
    launch(uint4{});
  } else {
    launch(std::byte{});
  }
}

}  // namespace troupe
