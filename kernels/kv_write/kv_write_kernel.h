#ifndef TROUPE_KERNELS_KV_WRITE_KV_WRITE_KERNEL_H_
#define TROUPE_KERNELS_KV_WRITE_KV_WRITE_KERNEL_H_

#include "kernels/kv_write/kv_write.h"
#include "kernels/simd/dispatch.h"

namespace troupe {

// Tokens [begin, end).
TROUPE_DECLARE_KERNEL(KvWriteTokens, const KvWriteParams& params, int64_t begin, int64_t end);

}  // namespace troupe

#endif  // TROUPE_KERNELS_KV_WRITE_KV_WRITE_KERNEL_H_
