#ifndef TROUPE_KERNELS_PAGE_COPY_PAGE_COPY_CUDA_H_
#define TROUPE_KERNELS_PAGE_COPY_PAGE_COPY_CUDA_H_

#include "kernels/page_copy/page_copy.h"

namespace troupe {

struct CudaContext;

void PageCopyCuda(const PageCopyParams& params, const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_PAGE_COPY_PAGE_COPY_CUDA_H_
