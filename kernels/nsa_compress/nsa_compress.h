// The compression branch's entries of NSA (Yuan et al., 2025, "Native Sparse Attention"): one key
// and one value for `block` raw tokens, every `stride` tokens.
//
// For raw vectors z_0 .. z_{block-1} of a KV head:
//     u_m = silu(w1 (z_m + position_m)),   a = softmax over m of (w2 u_m), channel by channel
//     c = sum_m a_m * z_m;   the key is rms(c; k_norm), the value is c
// Block i covers tokens [i * stride, i * stride + block). It is stored at entry
// (i * stride + block - 1) / stride, in the page of the 64-token block of its last token: pages are
// final when their tokens are. Entries are computed for the blocks whose last token is in the step.
#ifndef TROUPE_KERNELS_NSA_COMPRESS_NSA_COMPRESS_H_
#define TROUPE_KERNELS_NSA_COMPRESS_NSA_COMPRESS_H_

#include "kernels/tensor.h"

namespace troupe {

struct NsaPhi {
  const float* position = nullptr;  // [block, D]
  const float* w1 = nullptr;        // [D, D], out x in
  const float* w2 = nullptr;        // [D, D], out x in
};

// Sizes of NSA's branches, shared by its three operations.
struct NsaSizes {
  int compress_block = 0;   // tokens; a multiple of compress_stride
  int compress_stride = 0;  // tokens; divides kBlockTokens
  int selected_blocks = 0;  // 64-token blocks taken, initial and local ones included
  int initial_blocks = 0;
  int local_blocks = 0;  // the query's own block included
};

struct NsaCompressParams {
  BatchView batch;
  NsaSizes sizes;
  KvStream raw_k;
  KvStream raw_v;
  BlockTables raw_tables;
  NsaPhi phi_k;
  NsaPhi phi_v;
  const float* k_norm = nullptr;  // [D]
  float eps = 0;
  KvStream k;  // out
  KvStream v;  // out
  BlockTables tables;
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_NSA_COMPRESS_NSA_COMPRESS_H_
