#ifndef TROUPE_KERNELS_NSA_COMPRESS_NSA_COMPRESS_KERNEL_H_
#define TROUPE_KERNELS_NSA_COMPRESS_NSA_COMPRESS_KERNEL_H_

#include "kernels/nsa_compress/nsa_compress.h"
#include "kernels/simd/dispatch.h"

namespace troupe {

// One entry of a sequence, and where it comes from.
struct NsaEntry {
  int row;
  int64_t entry;
};

// phi.w1 and phi.w2 of keys or values, [D, D], in x out.
struct NsaTransposedPhi {
  float* w1;
  float* w2;
};

// Floats of scratch: three times the raw tokens of an entry.
[[gnu::always_inline]] inline int64_t NsaCompressScratchFloats(int block, int head_dim) {
  return int64_t{3} * block * head_dim;
}

TROUPE_DECLARE_KERNEL(NsaTransposePhi, const NsaPhi& phi, int head_dim, NsaTransposedPhi to);

// Key, or value, of one entry and KV head.
TROUPE_DECLARE_KERNEL(NsaCompressEntry, const NsaCompressParams& params, NsaEntry entry,
                      int kv_head, bool is_key, NsaTransposedPhi phi, float* scratch);

}  // namespace troupe

#endif  // TROUPE_KERNELS_NSA_COMPRESS_NSA_COMPRESS_KERNEL_H_
