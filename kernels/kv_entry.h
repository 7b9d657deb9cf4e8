// One entry of a KvStream of any dtype, element by element: for references and tests.
//
// Thread model: pure functions on the caller's memory. Ownership: none.
#ifndef TROUPE_KERNELS_KV_ENTRY_H_
#define TROUPE_KERNELS_KV_ENTRY_H_

#include <cstdint>
#include <vector>

#include "kernels/tensor.h"

namespace troupe {

// The D numbers that entry `index` of a page stands for.
std::vector<float> LoadKvEntry(const KvStream& stream, uint32_t page, int head, int64_t index);

// Puts down D numbers there, rounded to what the stream holds.
void StoreKvEntry(const KvStream& stream, uint32_t page, int head, int64_t index,
                  const float* values);

}  // namespace troupe

#endif  // TROUPE_KERNELS_KV_ENTRY_H_
