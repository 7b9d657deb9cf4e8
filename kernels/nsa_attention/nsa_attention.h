// NSA's selection branch: causal attention over the tokens of the selected 64-token blocks.
#ifndef TROUPE_KERNELS_NSA_ATTENTION_NSA_ATTENTION_H_
#define TROUPE_KERNELS_NSA_ATTENTION_NSA_ATTENTION_H_

#include "kernels/tensor.h"

namespace troupe {

struct NsaAttentionParams {
  BatchView batch;
  int heads = 0;
  int selected_blocks = 0;
  float scale = 0;
  Tensor q;  // [T, H * D] f32
  KvStream k;
  KvStream v;
  BlockTables tables;
  const int32_t* selected = nullptr;  // [T, G, selected_blocks]; -1 pads at the end
  HeadMix mix;
  Tensor out;  // [T, H * D] f32
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_NSA_ATTENTION_NSA_ATTENTION_H_
