// Device code of kernels/head_norm_rope/head_norm_rope.h: one warp a token and head.
#ifndef TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_CUH_
#define TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_CUH_

#include "kernels/cuda/math.cuh"
#include "kernels/head_norm_rope/head_norm_rope.h"

namespace troupe {

inline constexpr int kHeadNormRopeThreads = 128;

inline __global__ void __launch_bounds__(kHeadNormRopeThreads)
    HeadNormRopeKernel(HeadNormRopeParams params) {
  const int64_t item = (static_cast<int64_t>(blockIdx.x) * kHeadNormRopeThreads + threadIdx.x) /
                       kWarpSize;
  if (item >= params.x.rows * params.heads) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t token = item / params.heads;
  const int size = params.head_dim;
  float* x = static_cast<float*>(params.x.data) + token * params.x.stride +
             item % params.heads * size;
  const float* weight = params.norm_weight;
  float scale = 1;
  if (weight != nullptr) {
    float squares = 0;
    for (int c = lane; c < size; c += kWarpSize) squares = __fmaf_rn(x[c], x[c], squares);
    squares = WarpSum(squares);
    scale = 1.0F / sqrtf(squares / static_cast<float>(size) + params.eps);
  }
  const auto normed = [&](int c) { return weight == nullptr ? x[c] : x[c] * scale * weight[c]; };
  if (params.inverse_frequency == nullptr) {
    for (int c = lane; c < size; c += kWarpSize) x[c] = normed(c);
    return;
  }
  const auto position = static_cast<float>(params.position[token]);
  const int half = size / 2;
  for (int j = lane; j < half; j += kWarpSize) {
    float sine;
    float cosine;
    sincosf(position * params.inverse_frequency[j], &sine, &cosine);
    const float a = normed(j);
    const float b = normed(j + half);
    x[j] = a * cosine - b * sine;
    x[j + half] = b * cosine + a * sine;
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_CUH_
