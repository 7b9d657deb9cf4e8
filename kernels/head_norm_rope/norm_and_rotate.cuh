// What one warp does to one head (kernels/head_norm_rope/head_norm_rope.h).
#ifndef TROUPE_KERNELS_HEAD_NORM_ROPE_NORM_AND_ROTATE_CUH_
#define TROUPE_KERNELS_HEAD_NORM_ROPE_NORM_AND_ROTATE_CUH_

#include "kernels/cuda/math.cuh"
#include "kernels/head_norm_rope/head_norm_rope.h"

namespace troupe {

__device__ __forceinline__ float* HeadOf(const HeadNormRopeParams& params, int64_t token,
                                         int64_t head) {
  return static_cast<float*>(params.x.data) + token * params.x.stride + head * params.head_dim;
}

// By one warp. Calls store(c, value) for each dimension that changes, or with kEvery for all: from
// the lane that alone reads what is at c after the sum of squares. params.rotated_dims is resolved.
template <bool kEvery, class Store>
__device__ __forceinline__ void NormAndRotateHead(const HeadNormRopeParams& params, int64_t token,
                                                  int64_t head, const Store& store) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int size = params.head_dim;
  const float* x = HeadOf(params, token, head);
  const float* weight = params.norm_weight;
  float scale = 1;
  if (weight != nullptr) {
    float squares = 0;
    for (int c = lane; c < size; c += kWarpSize) squares = __fmaf_rn(x[c], x[c], squares);
    squares = WarpSum(squares);
    scale = 1.0F / sqrtf(squares / static_cast<float>(size) + params.eps);
  }
  const auto normed = [&](int c) { return weight == nullptr ? x[c] : x[c] * scale * weight[c]; };
  const int first = params.inverse_frequency == nullptr ? size : params.first_rotated;
  const int rotated = params.inverse_frequency == nullptr ? 0 : params.rotated_dims;
  if (kEvery || weight != nullptr) {
    for (int c = lane; c < size; c += kWarpSize) {
      if (c < first || c >= first + rotated) store(c, normed(c));
    }
  }
  if (rotated == 0) return;
  const auto position = static_cast<float>(params.position[token]);
  for (int j = lane; j < rotated / 2; j += kWarpSize) {
    float sine;
    float cosine;
    sincosf(position * params.inverse_frequency[j], &sine, &cosine);
    sine *= params.amplitude;
    cosine *= params.amplitude;
    const int at = first + (params.interleaved ? 2 * j : j);
    const int other = first + (params.interleaved ? 2 * j + 1 : j + rotated / 2);
    const float a = normed(at);
    const float b = normed(other);
    store(at, a * cosine - b * sine);
    store(other, b * cosine + a * sine);
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_HEAD_NORM_ROPE_NORM_AND_ROTATE_CUH_
