// kernels/qkv_write/qkv_write.h for keys and values in FP8: one warp for each head of a token. A
// row's scale is known once all of it is, so keys are normed and rotated in place first.
#ifndef TROUPE_KERNELS_QKV_WRITE_QKV_WRITE_CODED_CUH_
#define TROUPE_KERNELS_QKV_WRITE_QKV_WRITE_CODED_CUH_

#include "kernels/head_norm_rope/norm_and_rotate.cuh"
#include "kernels/kv_write/kv_codes.cuh"
#include "kernels/qkv_write/qkv_write.h"

namespace troupe {

// rotated_dims of queries and keys are resolved.
__global__ void __launch_bounds__(kCodedWriteThreads) QkvWriteCodedKernel(QkvWriteParams params) {
  LetNextKernelBegin();
  WaitForEarlierKernels();
  const int k_heads = params.kv.k_stream.kv_heads;
  const int heads_a_token = params.q.heads + k_heads + params.kv.v_stream.kv_heads;
  const int64_t item =
      (static_cast<int64_t>(blockIdx.x) * kCodedWriteThreads + threadIdx.x) / kWarpSize;
  if (item >= params.q.x.rows * heads_a_token) return;
  const int64_t token = item / heads_a_token;
  const auto head = static_cast<int>(item % heads_a_token);
  const auto rotate = [&](const HeadNormRopeParams& heads, int number) {
    float* x = HeadOf(heads, token, number);
    NormAndRotateHead<false>(heads, token, number, [&](int c, float value) { x[c] = value; });
    return x;
  };
  if (head < params.q.heads) {
    rotate(params.q, head);
    return;
  }
  const BatchView& batch = params.kv.batch;
  const uint32_t slot = batch.slot[batch.token_row[token]];
  const int64_t entry = batch.position[token];
  const int k_head = head - params.q.heads;
  if (k_head < k_heads) {
    const float* x = rotate(params.k, k_head);
    __syncwarp();
    WriteCodedRow(x, params.kv.k_stream, params.kv.tables, slot, entry, k_head);
    return;
  }
  const int v_head = k_head - k_heads;
  WriteCodedRow(static_cast<const float*>(params.kv.v.data) + token * params.kv.v.stride +
                    v_head * params.kv.v_stream.head_dim,
                params.kv.v_stream, params.kv.tables, slot, entry, v_head);
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_QKV_WRITE_QKV_WRITE_CODED_CUH_
