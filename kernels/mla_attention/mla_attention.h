// Multi-head latent attention (DeepSeek-V2, section 2.1) over the paged latents of its sequences.
//
// Of token s the cache holds its latent c_s [L] and its rotated key part r_s [R], one after the
// other, for all heads together; there are no values of their own. Head h of token t, whose query
// is (n, p), n [N] without position and p [R] rotated, sees the tokens s <= t:
//     key_s = (K_h c_s, r_s)    value_s = V_h c_s    out = softmax(scale (n, p) . key_s) value_s
// Two forms give the same result but for rounding:
//     expanded  as written: K_h c_s and V_h c_s of the context, then ordinary attention
//     absorbed  n . K_h c_s = (K_h^T n) . c_s, so that attention stays among latents:
//               out = V_h sum_s softmax(scale ((K_h^T n, p) . (c_s, r_s))) c_s
// Expanding costs for each token of the context, absorbing for each pair of query and key, so that
// prompts are cheaper expanded and decode is cheaper absorbed.
//
// Invariant: with the form given, a token's result depends, bit for bit, on nothing but its own
// sequence. With the form chosen, it also depends on how many tokens of the sequence share the
// step, by rounding only: never on other sequences.
#ifndef TROUPE_KERNELS_MLA_ATTENTION_MLA_ATTENTION_H_
#define TROUPE_KERNELS_MLA_ATTENTION_MLA_ATTENTION_H_

#include "kernels/linear/linear.h"
#include "kernels/mla_attention/mla_form.h"
#include "kernels/tensor.h"

namespace troupe {

// Of one head. All matrices of an operation have the same precision, and the same dtype.
struct MlaHeadWeights {
  const PackedMatrix* key_up = nullptr;    // [N, L], K_h
  const PackedMatrix* key_down = nullptr;  // [L, N], its transpose
  const PackedMatrix* value_up = nullptr;  // [V, L], V_h
};

struct MlaAttentionParams {
  BatchView batch;
  MlaDims dims;
  float scale = 0;
  Tensor q;         // [T, H * (N + R)] f32
  KvStream latent;  // one head of L + R
  BlockTables tables;
  const MlaHeadWeights* weights = nullptr;  // [H]
  const MlaForm* form = nullptr;            // [R]; null: by ChooseMlaForm
  Tensor out;                               // [T, H * V] f32
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_MLA_ATTENTION_MLA_ATTENTION_H_
