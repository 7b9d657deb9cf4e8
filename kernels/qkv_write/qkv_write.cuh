// Device code of kernels/qkv_write/qkv_write.h: one warp for each head of a token, first queries',
// then keys', then values'.
#ifndef TROUPE_KERNELS_QKV_WRITE_QKV_WRITE_CUH_
#define TROUPE_KERNELS_QKV_WRITE_QKV_WRITE_CUH_

#include "kernels/cuda/hopper.cuh"
#include "kernels/head_norm_rope/norm_and_rotate.cuh"
#include "kernels/kv_write/kv_write.cuh"
#include "kernels/qkv_write/qkv_write.h"

namespace troupe {

inline constexpr int kQkvWriteThreads = 128;

// rotated_dims of queries and keys are resolved.
template <class Element>
__global__ void __launch_bounds__(kQkvWriteThreads) QkvWriteKernel(QkvWriteParams params) {
  LetNextKernelBegin();
  WaitForEarlierKernels();
  const int heads_a_token =
      params.q.heads + params.kv.k_stream.kv_heads + params.kv.v_stream.kv_heads;
  const int64_t item =
      (static_cast<int64_t>(blockIdx.x) * kQkvWriteThreads + threadIdx.x) / kWarpSize;
  if (item >= params.q.x.rows * heads_a_token) return;
  const int64_t token = item / heads_a_token;
  const auto head = static_cast<int>(item % heads_a_token);
  if (head < params.q.heads) {
    float* to = HeadOf(params.q, token, head);
    NormAndRotateHead<false>(params.q, token, head, [&](int c, float value) { to[c] = value; });
    return;
  }
  const BatchView& batch = params.kv.batch;
  const uint32_t slot = batch.slot[batch.token_row[token]];
  const int64_t entry = batch.position[token];
  const int k_head = head - params.q.heads;
  if (k_head < params.kv.k_stream.kv_heads) {
    Element* to = EntryFor<Element>(params.kv.k_stream, params.kv.tables, slot, entry, k_head);
    NormAndRotateHead<true>(params.k, token, k_head,
                            [&](int c, float value) { to[c] = Narrow<Element>(value); });
    return;
  }
  const int v_head = k_head - params.kv.k_stream.kv_heads;
  const int size = params.kv.v_stream.head_dim;
  Element* to = EntryFor<Element>(params.kv.v_stream, params.kv.tables, slot, entry, v_head);
  const float* from =
      static_cast<const float*>(params.kv.v.data) + token * params.kv.v.stride + v_head * size;
  for (int c = static_cast<int>(threadIdx.x) % kWarpSize; c < size; c += kWarpSize) {
    to[c] = Narrow<Element>(from[c]);
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_QKV_WRITE_QKV_WRITE_CUH_
