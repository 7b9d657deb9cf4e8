// Causal grouped-query attention over paged keys and values, whole or within a window.
//
// Query t sees keys s with t - window < s <= t. Closed heads (factor zero) are not computed. A sink
// is one more score of its head, beside those of the keys, whose value is zero. Values may have
// another size than keys.
#ifndef TROUPE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_H_
#define TROUPE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_H_

#include "kernels/tensor.h"

namespace troupe {

struct PagedAttentionParams {
  BatchView batch;
  int heads = 0;
  int window = 0;  // tokens, the query's own included; 0: all
  float scale = 0;
  Tensor q;  // [T, H * D] f32, D = k.head_dim
  KvStream k;
  KvStream v;
  BlockTables tables;
  HeadMix mix;
  Tensor out;                    // [T, H * Dv] f32, Dv = v.head_dim
  const float* sinks = nullptr;  // [H]; null: none
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_H_
