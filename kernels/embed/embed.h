// Token embedding: out[t] = scale * table[token[t]].
#ifndef TROUPE_KERNELS_EMBED_EMBED_H_
#define TROUPE_KERNELS_EMBED_EMBED_H_

#include "kernels/tensor.h"

namespace troupe {

struct EmbedParams {
  const uint32_t* tokens = nullptr;  // [T], each under table.rows
  Tensor table;                      // [V, d] f32 or bf16
  Tensor out;                        // [T, d] f32
  float scale = 1;
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_EMBED_EMBED_H_
