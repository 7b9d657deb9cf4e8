// Copies whole pages inside one group's memory, for forks.
#ifndef TROUPE_KERNELS_PAGE_COPY_PAGE_COPY_H_
#define TROUPE_KERNELS_PAGE_COPY_PAGE_COPY_H_

#include "kernels/tensor.h"

namespace troupe {

struct PageCopyParams {
  std::byte* pages = nullptr;
  int64_t page_bytes = 0;
  int count = 0;
  const uint32_t* from = nullptr;  // [count]
  const uint32_t* to = nullptr;    // [count], disjoint from `from`
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_PAGE_COPY_PAGE_COPY_H_
