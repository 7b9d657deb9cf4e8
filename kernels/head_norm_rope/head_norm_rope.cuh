// Device code of kernels/head_norm_rope/head_norm_rope.h: one warp a token and head.
#ifndef TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_CUH_
#define TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_CUH_

#include "kernels/cuda/hopper.cuh"
#include "kernels/head_norm_rope/norm_and_rotate.cuh"

namespace troupe {

inline constexpr int kHeadNormRopeThreads = 128;

__global__ void __launch_bounds__(kHeadNormRopeThreads)
    HeadNormRopeKernel(HeadNormRopeParams params) {
  LetNextKernelBegin();
  WaitForEarlierKernels();
  const int64_t item =
      (static_cast<int64_t>(blockIdx.x) * kHeadNormRopeThreads + threadIdx.x) / kWarpSize;
  if (item >= params.x.rows * params.heads) return;
  const int64_t token = item / params.heads;
  const int64_t head = item % params.heads;
  float* to = HeadOf(params, token, head);
  NormAndRotateHead<false>(params, token, head, [&](int c, float value) { to[c] = value; });
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_CUH_
