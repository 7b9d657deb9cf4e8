// Root-mean-square norm (Zhang and Sennrich, 2019): out = x / sqrt(mean(x^2) + eps) * weight, or
// out += that, in f32.
#ifndef TROUPE_KERNELS_RMS_NORM_RMS_NORM_H_
#define TROUPE_KERNELS_RMS_NORM_RMS_NORM_H_

#include "kernels/tensor.h"

namespace troupe {

struct RmsNormParams {
  Tensor x;       // [T, d] f32
  Tensor weight;  // [1, d] f32
  float eps = 0;
  Tensor out;  // [T, d] f32; may be x
  bool accumulate = false;
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_RMS_NORM_RMS_NORM_H_
