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

// What a warp knows of a head before x is there: how it is normed and rotated as a whole, two
// halves of it beside each other, and lanes have dimensions lane, lane + 32, ...
template <int kOwn>
struct WholeHead {
  float weight[kOwn];
  float sine[kOwn / 2];
  float cosine[kOwn / 2];

  __device__ __forceinline__ WholeHead(const HeadNormRopeParams& params, int64_t token) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    const auto position = static_cast<float>(params.position[token]);
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      weight[i] = params.norm_weight == nullptr ? 1.0F : params.norm_weight[lane + i * kWarpSize];
    }
#pragma unroll
    for (int i = 0; i < kOwn / 2; ++i) {
      sincosf(position * params.inverse_frequency[lane + i * kWarpSize], &sine[i], &cosine[i]);
      sine[i] *= params.amplitude;
      cosine[i] *= params.amplitude;
    }
  }

  // As NormAndRotateHead, in the same order.
  template <class Store>
  __device__ __forceinline__ void Run(const HeadNormRopeParams& params, int64_t token, int head,
                                      const Store& store) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    const float* x = HeadOf(params, token, head) + lane;
    float own[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i) own[i] = x[i * kWarpSize];
    if (params.norm_weight != nullptr) {
      float squares = 0;
#pragma unroll
      for (int i = 0; i < kOwn; ++i) squares = __fmaf_rn(own[i], own[i], squares);
      squares = WarpSum(squares);
      const float scale = 1.0F / sqrtf(squares / static_cast<float>(kOwn * kWarpSize) + params.eps);
#pragma unroll
      for (int i = 0; i < kOwn; ++i) own[i] = own[i] * scale * weight[i];
    }
#pragma unroll
    for (int i = 0; i < kOwn / 2; ++i) {
      const float a = own[i];
      const float b = own[i + kOwn / 2];
      store(lane + i * kWarpSize, a * cosine[i] - b * sine[i]);
      store(lane + (i + kOwn / 2) * kWarpSize, b * cosine[i] + a * sine[i]);
    }
  }
};

// Whether WholeHead<kOwn> takes heads.
__host__ __device__ __forceinline__ bool RotatesWhole(const HeadNormRopeParams& params, int own) {
  return params.head_dim == own * kWarpSize && params.inverse_frequency != nullptr &&
         !params.interleaved && params.first_rotated == 0 && params.rotated_dims == params.head_dim;
}

// Where a token's keys and values go.
struct WrittenEntry {
  uint32_t slot;
  int64_t entry;

  __device__ __forceinline__ WrittenEntry(const BatchView& batch, int64_t token)
      : slot(batch.slot[batch.token_row[token]]), entry(batch.position[token]) {}
};

// For heads of queries and keys that WholeHead<kOwn> takes, and values of the same size: before x
// is there, all is known but x.
template <class Element, int kOwn>
__global__ void __launch_bounds__(kQkvWriteThreads) QkvWriteWholeKernel(QkvWriteParams params) {
  LetNextKernelBegin();
  const int heads_a_token =
      params.q.heads + params.kv.k_stream.kv_heads + params.kv.v_stream.kv_heads;
  const int64_t item =
      (static_cast<int64_t>(blockIdx.x) * kQkvWriteThreads + threadIdx.x) / kWarpSize;
  if (item >= params.q.x.rows * heads_a_token) return WaitForEarlierKernels();
  const int64_t token = item / heads_a_token;
  const auto head = static_cast<int>(item % heads_a_token);
  const int k_head = head - params.q.heads;
  const int v_head = k_head - params.kv.k_stream.kv_heads;
  if (k_head < 0) {
    const WholeHead<kOwn> whole(params.q, token);
    float* to = HeadOf(params.q, token, head);
    WaitForEarlierKernels();
    whole.Run(params.q, token, head, [&](int c, float value) { to[c] = value; });
    return;
  }
  const WrittenEntry place(params.kv.batch, token);
  if (v_head < 0) {
    Element* to =
        EntryFor<Element>(params.kv.k_stream, params.kv.tables, place.slot, place.entry, k_head);
    const WholeHead<kOwn> whole(params.k, token);
    WaitForEarlierKernels();
    whole.Run(params.k, token, k_head, [&](int c, float value) { to[c] = Narrow<Element>(value); });
    return;
  }
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  Element* to =
      EntryFor<Element>(params.kv.v_stream, params.kv.tables, place.slot, place.entry, v_head) +
      lane;
  const float* from = static_cast<const float*>(params.kv.v.data) + token * params.kv.v.stride +
                      v_head * kOwn * kWarpSize + lane;
  WaitForEarlierKernels();
#pragma unroll
  for (int i = 0; i < kOwn; ++i) to[i * kWarpSize] = Narrow<Element>(from[i * kWarpSize]);
}

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
