// Entries of a sequence in the pages of a state group.
#ifndef TROUPE_KERNELS_CUDA_PAGES_CUH_
#define TROUPE_KERNELS_CUDA_PAGES_CUH_

#include "kernels/cuda/math.cuh"
#include "kernels/tensor.h"

namespace troupe {

// Where an entry of a sequence begins.
template <class Element>
__device__ __forceinline__ const Element* EntryAt(const KvStream& stream, const BlockTables& tables,
                                                  uint32_t slot, int64_t entry, int kv_head) {
  const uint32_t page = tables.pages[slot * tables.stride + entry / stream.entries_per_page];
  const int64_t row =
      static_cast<int64_t>(kv_head) * stream.entries_per_page + entry % stream.entries_per_page;
  return reinterpret_cast<const Element*>(stream.base + page * stream.page_bytes) +
         row * stream.head_dim;
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_PAGES_CUH_
