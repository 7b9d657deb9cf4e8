// The chosen experts' SwiGLU networks and the shared one: out[t] += sum_e weight_e expert_e(x[t]) +
// shared(x[t]). Each expert reads its weights once for all of its tokens.
#ifndef TROUPE_KERNELS_MOE_EXPERTS_MOE_EXPERTS_H_
#define TROUPE_KERNELS_MOE_EXPERTS_MOE_EXPERTS_H_

#include "kernels/linear/linear.h"
#include "kernels/tensor.h"

namespace troupe {

struct ExpertWeights {
  const PackedMatrix* gate_up = nullptr;  // [2 * m, d]: gate, then up
  const PackedMatrix* down = nullptr;     // [d, m]
};

struct MoeExpertsParams {
  Tensor x;  // [T, d] f32
  int expert_count = 0;
  const ExpertWeights* experts = nullptr;  // [E]
  const ExpertWeights* shared = nullptr;   // null: none
  int top_k = 0;
  const int32_t* chosen = nullptr;  // [T, top_k]
  const float* weights = nullptr;   // [T, top_k]
  Tensor out;                       // [T, d] f32, added to
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_EXPERTS_MOE_EXPERTS_H_
