// The oracle of kernels/page_copy/page_copy.h: the formula as it is written there, slow and simple.
#ifndef TROUPE_KERNELS_PAGE_COPY_PAGE_COPY_REFERENCE_H_
#define TROUPE_KERNELS_PAGE_COPY_PAGE_COPY_REFERENCE_H_

#include "kernels/page_copy/page_copy.h"

namespace troupe {

void PageCopyReference(const PageCopyParams& params);

}  // namespace troupe

#endif  // TROUPE_KERNELS_PAGE_COPY_PAGE_COPY_REFERENCE_H_
