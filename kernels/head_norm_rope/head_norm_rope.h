// Per-head RMS norm of queries or keys, then rotary positions, in place.
//
// RoPE (Su et al., 2021) in the half-split form of HF transformers: with c, s the cosine and sine
// of position * theta^(-2j/D),  (x[j], x[j + D/2]) -> (x[j] c - x[j + D/2] s, x[j + D/2] c + x[j]
// s).
#ifndef TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_H_
#define TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_H_

#include "kernels/tensor.h"

namespace troupe {

struct HeadNormRopeParams {
  Tensor x;  // [T, heads * D] f32, in place
  int heads = 0;
  int head_dim = 0;
  const float* norm_weight = nullptr;  // [D]; null: no norm
  float eps = 0;
  const float* inverse_frequency = nullptr;  // [D / 2]; null: no rotation
  const int32_t* position = nullptr;         // [T]
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_H_
