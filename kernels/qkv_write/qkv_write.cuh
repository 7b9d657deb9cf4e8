// Device code of kernels/qkv_write/qkv_write.h: one warp for each head of a token, first queries',
// then keys', then values'; with many tokens a warp has several heads of one.
#ifndef TROUPE_KERNELS_QKV_WRITE_QKV_WRITE_CUH_
#define TROUPE_KERNELS_QKV_WRITE_QKV_WRITE_CUH_

#include "kernels/cuda/hopper.cuh"
#include "kernels/head_norm_rope/norm_and_rotate.cuh"
#include "kernels/kv_write/kv_write.cuh"
#include "kernels/qkv_write/qkv_write.h"

namespace troupe {

inline constexpr int kQkvWriteThreads = 128;
inline constexpr int64_t kLeastTokensWithOwnBlocks = 1024;

// A lane's dimensions of a head: lane, lane + 32, ...
template <int kOwn>
__device__ __forceinline__ void LoadHead(const float* head, float (&own)[kOwn]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) own[i] = head[lane + i * kWarpSize];
}

template <int kOwn>
__device__ __forceinline__ void LoadNormWeights(const HeadNormRopeParams& params,
                                                float (&weight)[kOwn]) {
#pragma unroll
  for (float& w : weight) w = 1;
  if (params.norm_weight != nullptr) LoadHead(params.norm_weight, weight);
}

// How a token's heads are rotated as a whole, two halves beside each other.
template <int kOwn>
struct HeadRotation {
  float sine[kOwn / 2];
  float cosine[kOwn / 2];

  __device__ __forceinline__ HeadRotation(const HeadNormRopeParams& params, int64_t token) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    const auto position = static_cast<float>(params.position[token]);
#pragma unroll
    for (int i = 0; i < kOwn / 2; ++i) {
      sincosf(position * params.inverse_frequency[lane + i * kWarpSize], &sine[i], &cosine[i]);
      sine[i] *= params.amplitude;
      cosine[i] *= params.amplitude;
    }
  }

  // As NormAndRotateHead, in the same order.
  template <class Store>
  __device__ __forceinline__ void Run(const HeadNormRopeParams& params, const float (&weight)[kOwn],
                                      float (&own)[kOwn], const Store& store) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
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

// What a warp knows of a head before x is there.
template <int kOwn>
struct WholeHead {
  float weight[kOwn];
  HeadRotation<kOwn> rotation;

  __device__ __forceinline__ WholeHead(const HeadNormRopeParams& params, int64_t token)
      : rotation(params, token) {
    LoadNormWeights(params, weight);
  }

  template <class Store>
  __device__ __forceinline__ void Run(const HeadNormRopeParams& params, int64_t token, int head,
                                      const Store& store) const {
    float own[kOwn];
    LoadHead(HeadOf(params, token, head), own);
    rotation.Run(params, weight, own, store);
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

// The same for many tokens: a block for each, a warp for every fourth head, one after another, with
// one rotation. Queries and keys have the same positions and frequencies.
template <class Element, int kOwn>
__global__ void __launch_bounds__(kQkvWriteThreads) QkvWriteTokensKernel(QkvWriteParams params) {
  LetNextKernelBegin();
  constexpr int kWarps = kQkvWriteThreads / kWarpSize;
  const int64_t token = blockIdx.x;
  const int k_heads = params.kv.k_stream.kv_heads;
  const int heads = params.q.heads + k_heads + params.kv.v_stream.kv_heads;
  const HeadRotation<kOwn> rotation(params.q, token);
  const WrittenEntry place(params.kv.batch, token);
  float q_weight[kOwn];
  float k_weight[kOwn];
  LoadNormWeights(params.q, q_weight);
  LoadNormWeights(params.k, k_weight);
  const auto load = [&](int head, float(&own)[kOwn]) {
    const int k_head = head - params.q.heads;
    const float* values = static_cast<const float*>(params.kv.v.data) + token * params.kv.v.stride +
                          (k_head - k_heads) * kOwn * kWarpSize;
    LoadHead(k_head < 0         ? HeadOf(params.q, token, head)
             : k_head < k_heads ? HeadOf(params.k, token, k_head)
                                : values,
             own);
  };
  WaitForEarlierKernels();
  int head = static_cast<int>(threadIdx.x) / kWarpSize;
  float next[kOwn];
  if (head < heads) load(head, next);
  for (; head < heads; head += kWarps) {
    float own[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i) own[i] = next[i];
    if (head + kWarps < heads) load(head + kWarps, next);
    const int k_head = head - params.q.heads;
    if (k_head < 0) {
      float* to = HeadOf(params.q, token, head);
      rotation.Run(params.q, q_weight, own, [&](int c, float value) { to[c] = value; });
      continue;
    }
    const bool is_key = k_head < k_heads;
    Element* to =
        EntryFor<Element>(is_key ? params.kv.k_stream : params.kv.v_stream, params.kv.tables,
                          place.slot, place.entry, is_key ? k_head : k_head - k_heads);
    if (is_key) {
      rotation.Run(params.k, k_weight, own,
                   [&](int c, float value) { to[c] = Narrow<Element>(value); });
    } else {
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        to[static_cast<int>(threadIdx.x) % kWarpSize + i * kWarpSize] = Narrow<Element>(own[i]);
      }
    }
  }
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
