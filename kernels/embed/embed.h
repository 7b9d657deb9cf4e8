// Token embedding: out[t] = scale * table[token[t]]. A token may be one that was sampled on the
// device and is not known elsewhere: then its sequence's slot stands in its place.
#ifndef TROUPE_KERNELS_EMBED_EMBED_H_
#define TROUPE_KERNELS_EMBED_EMBED_H_

#include "kernels/tensor.h"

namespace troupe {

// In place of a token: SampleParams::last_tokens has it, of the slot in the other bits.
inline constexpr uint32_t kLastTokenOf = 0x80000000U;

struct EmbedParams {
  const uint32_t* tokens = nullptr;  // [T], each under table.rows, or kLastTokenOf | slot
  Tensor table;                      // [V, d] f32 or bf16
  Tensor out;                        // [T, d] f32
  float scale = 1;
  const uint32_t* last_tokens = nullptr;  // [slots]; null: no token is kLastTokenOf
};

// The token of row `row`, whichever way it is named.
constexpr uint32_t TokenOf(const EmbedParams& params, int64_t row) {
  const uint32_t token = params.tokens[row];
  const bool last = params.last_tokens != nullptr && (token & kLastTokenOf) != 0;
  return last ? params.last_tokens[token & ~kLastTokenOf] : token;
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_EMBED_EMBED_H_
