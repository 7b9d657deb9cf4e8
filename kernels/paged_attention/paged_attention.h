// Causal grouped-query attention over paged keys and values, whole or within a window.
//
// Query t sees keys s with t - window < s <= t. Closed heads (factor zero) are not computed.
#ifndef TROUPE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_H_
#define TROUPE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_H_

#include "kernels/tensor.h"

namespace troupe {

struct PagedAttentionParams {
  BatchView batch;
  int heads = 0;
  int window = 0;  // tokens, the query's own included; 0: all
  float scale = 0;
  Tensor q;  // [T, H * D] f32
  KvStream k;
  KvStream v;
  BlockTables tables;
  HeadMix mix;
  Tensor out;  // [T, H * D] f32
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_H_
