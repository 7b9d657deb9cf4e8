// Per-head RMS norm of queries or keys, then rotary positions, in place.
//
// RoPE (Su et al., 2021) turns n = rotated_dims of a head's dimensions, from first_rotated on. With
// c, s the cosine and sine of position * inverse_frequency[j], times the amplitude,
//     (a, b) -> (a c - b s, b c + a s)
// for the pairs (x[j], x[j + n/2]) of the half-split form, as HF transformers pairs them, or
// (x[2j], x[2j + 1]) of the interleaved one.
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
  const float* inverse_frequency = nullptr;  // [rotated dims / 2]; null: no rotation
  const int32_t* position = nullptr;         // [T]
  int first_rotated = 0;
  int rotated_dims = 0;  // even; 0: all from first_rotated on
  bool interleaved = false;
  float amplitude = 1;  // of cosines and sines (YaRN's attention factor)

  [[gnu::always_inline]] int RotatedDims() const {
    return rotated_dims > 0 ? rotated_dims : head_dim - first_rotated;
  }
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_H_
