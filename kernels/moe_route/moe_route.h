// Choice of experts with a correction bias (DeepSeek-V3, "noaux_tc"), in f32.
//
//     s = sigmoid(logits);  chosen = the top_k largest of s + bias, ties to the lower index
//     weight_e = s_e / (sum of the chosen s + 1e-20) * scale        (without `normalize`: s_e *
//     scale)
#ifndef TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_H_
#define TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_H_

#include "kernels/tensor.h"

namespace troupe {

struct MoeRouteParams {
  Tensor logits;                // [T, E] f32
  const float* bias = nullptr;  // [E]
  int top_k = 0;
  bool normalize = true;
  float scale = 1;
  int32_t* experts = nullptr;  // [T, top_k], out: highest s + bias first
  float* weights = nullptr;    // [T, top_k], out
  int32_t* load = nullptr;     // [E], out: added to, tokens that chose each expert; may be null
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_H_
