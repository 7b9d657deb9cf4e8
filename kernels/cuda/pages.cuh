// Entries of a sequence in the pages of a state group.
#ifndef TROUPE_KERNELS_CUDA_PAGES_CUH_
#define TROUPE_KERNELS_CUDA_PAGES_CUH_

#include "kernels/cuda/math.cuh"
#include "kernels/tensor.h"

namespace troupe {

// Where an entry of a sequence begins. Pages hold a power of two of entries: no division.
template <class Element>
__device__ __forceinline__ const Element* EntryAt(const KvStream& stream, const BlockTables& tables,
                                                  uint32_t slot, int entry, int kv_head) {
  const int shift = 31 - __clz(stream.entries_per_page);
  const uint32_t page = tables.pages[slot * tables.stride + (entry >> shift)];
  const int row = (kv_head << shift) + (entry & (stream.entries_per_page - 1));
  return reinterpret_cast<const Element*>(stream.base + page * stream.page_bytes) +
         static_cast<int64_t>(row) * stream.head_dim;
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_PAGES_CUH_
