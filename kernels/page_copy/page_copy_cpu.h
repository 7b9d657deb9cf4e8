#ifndef TROUPE_KERNELS_PAGE_COPY_PAGE_COPY_CPU_H_
#define TROUPE_KERNELS_PAGE_COPY_PAGE_COPY_CPU_H_

#include "kernels/cpu_context.h"
#include "kernels/page_copy/page_copy.h"

namespace troupe {

void PageCopyCpu(const PageCopyParams& params, const CpuContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_PAGE_COPY_PAGE_COPY_CPU_H_
