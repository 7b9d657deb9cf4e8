// Root-mean-square norm (Zhang and Sennrich, 2019): out = x / sqrt(mean(x^2) + eps) * weight, or
// out += that, in f32. Where a row is cut in equal parts that lie on several devices, the sums of
// squares of the parts are formed first, added up over the devices, and given to each part's norm.
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
  // [T] sums of squares of whole rows of `parts` times as many columns; null: x has them whole.
  const float* square_sums = nullptr;
  int parts = 1;
};

// sums[t] = sum over c of x[t, c]^2
struct SquareSumsParams {
  Tensor x;               // [T, d] f32
  float* sums = nullptr;  // [T]
};

// Of an operation that norms what it reads, x, by itself: see Ops::NormsInputs.
struct InputNorm {
  const float* weight = nullptr;  // [d]; null: x is taken as it is
  float eps = 0;
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_RMS_NORM_RMS_NORM_H_
