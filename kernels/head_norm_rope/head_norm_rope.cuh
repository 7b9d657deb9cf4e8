// Device code of kernels/head_norm_rope/head_norm_rope.h: one warp a token and head.
#ifndef TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_CUH_
#define TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_CUH_

#include "kernels/cuda/math.cuh"
#include "kernels/head_norm_rope/head_norm_rope.h"

namespace troupe {

inline constexpr int kHeadNormRopeThreads = 128;

// params.rotated_dims is resolved.
__global__ void __launch_bounds__(kHeadNormRopeThreads)
    HeadNormRopeKernel(HeadNormRopeParams params) {
  const int64_t item =
      (static_cast<int64_t>(blockIdx.x) * kHeadNormRopeThreads + threadIdx.x) / kWarpSize;
  if (item >= params.x.rows * params.heads) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t token = item / params.heads;
  const int size = params.head_dim;
  float* x =
      static_cast<float*>(params.x.data) + token * params.x.stride + item % params.heads * size;
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
  if (weight != nullptr) {
    for (int c = lane; c < size; c += kWarpSize) {
      if (c < first || c >= first + rotated) x[c] = normed(c);
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
    x[at] = a * cosine - b * sine;
    x[other] = b * cosine + a * sine;
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_CUH_
