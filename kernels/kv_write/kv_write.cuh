// Device code of kernels/kv_write/kv_write.h: one block a token, keys and then values.
#ifndef TROUPE_KERNELS_KV_WRITE_KV_WRITE_CUH_
#define TROUPE_KERNELS_KV_WRITE_KV_WRITE_CUH_

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/math.cuh"
#include "kernels/kv_write/kv_write.h"

namespace troupe {

// Where one head's entry begins.
template <class Element>
__device__ __forceinline__ Element* EntryFor(const KvStream& stream, const BlockTables& tables,
                                             uint32_t slot, int64_t entry, int64_t head) {
  const uint32_t page = tables.pages[slot * tables.stride + entry / stream.entries_per_page];
  return reinterpret_cast<Element*>(stream.base + page * stream.page_bytes) +
         (head * stream.entries_per_page + entry % stream.entries_per_page) * stream.head_dim;
}

template <class Element>
__device__ void WriteEntry(const float* from, const KvStream& stream, const BlockTables& tables,
                           uint32_t slot, int64_t entry) {
  const uint32_t page = tables.pages[slot * tables.stride + entry / stream.entries_per_page];
  auto* to = reinterpret_cast<Element*>(stream.base + page * stream.page_bytes);
  const int64_t place = entry % stream.entries_per_page;
  const int count = stream.kv_heads * stream.head_dim;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
    const int64_t head = i / stream.head_dim;
    to[(head * stream.entries_per_page + place) * stream.head_dim + i % stream.head_dim] =
        Narrow<Element>(from[i]);
  }
}

template <class Element>
__global__ void KvWriteKernel(KvWriteParams params) {
  LetNextKernelBegin();
  WaitForEarlierKernels();
  const int64_t token = blockIdx.x;
  const uint32_t slot = params.batch.slot[params.batch.token_row[token]];
  const int64_t entry = params.batch.position[token];
  WriteEntry<Element>(static_cast<const float*>(params.k.data) + token * params.k.stride,
                      params.k_stream, params.tables, slot, entry);
  WriteEntry<Element>(static_cast<const float*>(params.v.data) + token * params.v.stride,
                      params.v_stream, params.tables, slot, entry);
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_KV_WRITE_KV_WRITE_CUH_
