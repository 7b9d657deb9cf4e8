// Device code of kernels/page_copy/page_copy.h: blocks of threads share a page.
#ifndef TROUPE_KERNELS_PAGE_COPY_PAGE_COPY_CUH_
#define TROUPE_KERNELS_PAGE_COPY_PAGE_COPY_CUH_

#include "kernels/cuda/math.cuh"
#include "kernels/page_copy/page_copy.h"

namespace troupe {

inline constexpr int kPageCopyThreads = 256;

// Grid: pieces of a page in x, pages in y. A page is a whole number of Units.
template <class Unit>
__global__ void PageCopyKernel(PageCopyParams params) {
  const int64_t units = params.page_bytes / static_cast<int64_t>(sizeof(Unit));
  const auto* from =
      reinterpret_cast<const Unit*>(params.pages + params.from[blockIdx.y] * params.page_bytes);
  auto* to = reinterpret_cast<Unit*>(params.pages + params.to[blockIdx.y] * params.page_bytes);
  const int64_t step = static_cast<int64_t>(gridDim.x) * kPageCopyThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kPageCopyThreads + threadIdx.x; i < units;
       i += step) {
    to[i] = from[i];
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_PAGE_COPY_PAGE_COPY_CUH_
