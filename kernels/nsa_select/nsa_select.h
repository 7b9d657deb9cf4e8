// NSA's compression branch fused with the choice of blocks for the selection branch.
//
//     p_h[i] = softmax over visible i of (q_h . ck_i * scale);   attended_h = sum_i p_h[i] cv_i
//     P[i] = sum of p_h[i] over the heads of a KV group; 0 where not visible
//     S[j] = sum over i, ascending, of P[i] * overlap(i, j), in f32
//
// where overlap is the number of tokens that compression block i and 64-token block j share, in
// strides. Block i is visible to query t when i * stride + block - 1 <= t. Of the blocks 0 .. t /
// 64, the `initial_blocks` first and the `local_blocks` last are always taken (together at most
// `selected_blocks`), the rest by S, highest first, ties to the lower j, until `selected_blocks`
// are. With nothing visible, attended and S are 0.
//
// A KV group whose heads are all closed is skipped: its selection is all -1. In any other group
// every head's scores count for S, closed or not.
#ifndef TROUPE_KERNELS_NSA_SELECT_NSA_SELECT_H_
#define TROUPE_KERNELS_NSA_SELECT_NSA_SELECT_H_

#include "kernels/nsa_compress/nsa_compress.h"
#include "kernels/tensor.h"

namespace troupe {

struct NsaSelectParams {
  BatchView batch;
  NsaSizes sizes;
  int heads = 0;
  float scale = 0;
  Tensor q;  // [T, H * D] f32
  KvStream k;
  KvStream v;
  BlockTables tables;
  HeadMix mix;
  Tensor out;                   // [T, H * D] f32
  int32_t* selected = nullptr;  // [T, G, selected_blocks], out: ascending, -1 pads
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_NSA_SELECT_NSA_SELECT_H_
