// Device code of kernels/nsa_select/nsa_select.h that follows the compression branch's attention:
// P, S and the choice of blocks, one block of threads a token and KV head.
//
// Invariant: P[i] is summed head by head and S[j] by ascending i, so that equal scores tie exactly.
#ifndef TROUPE_KERNELS_NSA_SELECT_NSA_SELECT_CUH_
#define TROUPE_KERNELS_NSA_SELECT_NSA_SELECT_CUH_

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/nsa_select/nsa_select.h"

namespace troupe {

struct NsaChoiceParams {
  AttentionParams attention;  // with `softmax`
  NsaSizes sizes;
  int64_t most_entries = 0;
  int64_t most_blocks = 0;
  int first_token = 0;          // of the tokens that share the scratch
  const float* given = nullptr;  // see SumGivenMass
  int64_t given_stride = 0;
  float* mass = nullptr;        // [tokens, G, most_entries] scratch: P
  float* scores = nullptr;      // [tokens, G, most_blocks] scratch: S
  int32_t* selected = nullptr;  // [T, G, selected_blocks]
};

// P of the entries that the token sees, into `mass` from its beginning.
template <class Element>
__device__ void SumMass(const NsaChoiceParams& params, int64_t token, int kv_head,
                        const SeenEntries& seen, const AttentionShared<Element>& shared,
                        float* mass) {
  const AttentionParams& attention = params.attention;
  const int head_dim = attention.k.head_dim;
  const int stride = shared.key_stride;
  const int group_heads = attention.heads / attention.k.kv_heads;
  const uint32_t slot = attention.batch.slot[attention.batch.token_row[token]];
  for (int tile = seen.first_tile; tile < seen.end_tile; ++tile) {
    const int first = tile * kAttentionTile;
    StartTile<Element>(attention.k, attention.tables, slot, kv_head, first, seen, shared.KeyTile(0),
                       shared.key_row_bytes);
    CommitCopies();
    float sum = 0;
    for (int first_head = 0; first_head < group_heads; first_head += kAttentionHeads) {
      const int heads = min(kAttentionHeads, group_heads - first_head);
      const int64_t row = token * attention.heads + kv_head * group_heads + first_head;
      const float* q = attention.q + token * attention.q_stride +
                       (kv_head * group_heads + first_head) * head_dim;
      for (int i = static_cast<int>(threadIdx.x); i < heads * stride; i += kAttentionThreads) {
        const int channel = i % stride;
        shared.q[i] = channel < head_dim ? q[i / stride * head_dim + channel] : 0.0F;
      }
      WaitForCopies<0>();
      __syncthreads();
      ScoreTile(shared, shared.KeyTile(0), heads, attention.scale_log2, first, seen);
      __syncthreads();
      if (threadIdx.x < kAttentionTile) {
        for (int head = 0; head < heads; ++head) {
          const float2 softmax = attention.softmax[row + head];
          const float score = shared.weights[head * kAttentionTile + threadIdx.x];
          sum = __fadd_rn(sum, __fdiv_rn(exp2f(score - softmax.x), softmax.y));
        }
      }
      __syncthreads();
    }
    const int entry = first + static_cast<int>(threadIdx.x);
    if (threadIdx.x < kAttentionTile && entry >= seen.first_entry && entry < seen.end_entry) {
      mass[entry - seen.first_entry] = sum;
    }
  }
  __syncthreads();
}

// S of block j; `count` entries are seen.
__device__ __forceinline__ float BlockScore(const NsaSizes& sizes, const float* mass, int64_t count,
                                            int64_t j) {
  const int64_t begin = j * kBlockTokens;
  const int64_t end = begin + kBlockTokens;
  const int64_t stride = sizes.compress_stride;
  const int64_t block = sizes.compress_block;
  float score = 0;
  for (int64_t i = max(int64_t{0}, begin - block + stride) / stride; i < count && i * stride < end;
       ++i) {
    const int64_t start = i * stride;
    const int64_t shared_tokens = min(start + block, end) - max(start, begin);
    score = __fmaf_rn(static_cast<float>(shared_tokens / stride), mass[i], score);
  }
  return score;
}

// The index of the highest of `count` scores that is not negative, ties to the lower; every thread
// gets it. `best` is one number a warp.
__device__ __forceinline__ int HighestScore(const float* scores, int count, uint64_t* best) {
  uint64_t mine = 0;
  for (int j = static_cast<int>(threadIdx.x); j < count; j += static_cast<int>(blockDim.x)) {
    if (scores[j] < 0) continue;
    // Scores are not negative, so their bits are in order.
    const uint64_t rank = static_cast<uint64_t>(__float_as_uint(scores[j])) << 32 |
                          (0xffffffffU - static_cast<unsigned>(j));
    mine = max(mine, rank);
  }
#pragma unroll
  for (int lane = kWarpSize / 2; lane > 0; lane /= 2) {
    const uint64_t other = __shfl_xor_sync(kAllLanes, mine, lane);
    mine = max(mine, other);
  }
  if (threadIdx.x % kWarpSize == 0) best[threadIdx.x / kWarpSize] = mine;
  __syncthreads();
  const int warps = static_cast<int>(blockDim.x) / kWarpSize;
  for (int warp = 0; warp < warps; ++warp) mine = max(mine, best[warp]);
  __syncthreads();
  return static_cast<int>(0xffffffffU - static_cast<unsigned>(mine & 0xffffffffU));
}

// Chooses among the blocks 0 .. own and writes them in ascending order. Scores that were taken are
// replaced by -1. `chosen` has room for every choice.
__device__ __forceinline__ void ChooseBlocks(const NsaSizes& sizes, float* scores, int own,
                                             int* chosen, int32_t* selected) {
  __shared__ uint64_t best[kWarpSize];
  const int count = min(own + 1, sizes.selected_blocks);
  const int initial = min(sizes.initial_blocks, own + 1);
  const int local = max(initial, own - sizes.local_blocks + 1);
  int taken = 0;
  const auto take = [&](int block) {
    if (threadIdx.x == 0) {
      chosen[taken] = block;
      scores[block] = -1;
    }
    ++taken;
  };
  for (int block = 0; block < initial && taken < count; ++block) take(block);
  for (int block = local; block <= own && taken < count; ++block) take(block);
  __syncthreads();
  while (taken < count) {
    take(HighestScore(scores, own + 1, best));
    __syncthreads();
  }
  for (int i = static_cast<int>(threadIdx.x); i < sizes.selected_blocks;
       i += static_cast<int>(blockDim.x)) {
    if (i >= count) {
      selected[i] = -1;
      continue;
    }
    int rank = 0;
    for (int other = 0; other < count; ++other) rank += chosen[other] < chosen[i] ? 1 : 0;
    selected[rank] = chosen[i];
  }
}

// Where the KV group is closed, its selection is all -1; returns whether it is.
__device__ __forceinline__ bool ClearClosedGroup(const NsaChoiceParams& params, int64_t token,
                                                 int kv_head, int32_t* selected) {
  const AttentionParams& attention = params.attention;
  const int group_heads = attention.heads / attention.k.kv_heads;
  for (int h = 0; h < group_heads; ++h) {
    if (FactorOf(attention.mix, token, kv_head * group_heads + h) != 0) return false;
  }
  for (int i = static_cast<int>(threadIdx.x); i < params.sizes.selected_blocks;
       i += static_cast<int>(blockDim.x)) {
    selected[i] = -1;
  }
  return true;
}

// What a token and KV head's block of threads does once P is known.
__device__ __forceinline__ void ScoreAndChoose(const NsaChoiceParams& params, int64_t token,
                                               const SeenEntries& seen, const float* mass,
                                               float* scores, int* chosen, int32_t* selected) {
  const auto own = static_cast<int>(params.attention.batch.position[token] / kBlockTokens);
  for (int j = static_cast<int>(threadIdx.x); j <= own; j += static_cast<int>(blockDim.x)) {
    scores[j] = BlockScore(params.sizes, mass, seen.end_entry - seen.first_entry, j);
  }
  __syncthreads();
  ChooseBlocks(params.sizes, scores, own, chosen, selected);
}

// Grid: tokens from first_token on in x, KV heads in y. Dynamic shared memory as for attention with
// one stage, then one number a choice.
template <class Element>
__global__ void __launch_bounds__(kAttentionThreads) NsaChooseKernel(NsaChoiceParams params) {
  extern __shared__ __align__(16) float attention_shared[];
  const AttentionParams& attention = params.attention;
  const AttentionShared<Element> shared(attention_shared, attention);
  auto* chosen = reinterpret_cast<int*>(shared.values);  // no values are loaded here
  const int64_t token = params.first_token + static_cast<int64_t>(blockIdx.x);
  const auto kv_head = static_cast<int>(blockIdx.y);
  int32_t* selected =
      params.selected + (token * attention.k.kv_heads + kv_head) * params.sizes.selected_blocks;
  if (ClearClosedGroup(params, token, kv_head, selected)) return;
  const int64_t place = static_cast<int64_t>(blockIdx.x) * attention.k.kv_heads + kv_head;
  float* mass = params.mass + place * params.most_entries;
  float* scores = params.scores + place * params.most_blocks;
  const SeenEntries seen = FindSeen<Seen::kCompressed>(attention, token, kv_head);
  SumMass(params, token, kv_head, seen, shared, mass);
  ScoreAndChoose(params, token, seen, mass, scores, chosen, selected);
}

// P from scores that attention has left (UnitAttentionParams), which it scales with
// attention.scale_log2: `given` [tokens from first_token on, H, given_stride].
__device__ __forceinline__ void SumGivenMass(const NsaChoiceParams& params, int64_t token,
                                             int kv_head, const SeenEntries& seen, float* mass) {
  const AttentionParams& attention = params.attention;
  const int group_heads = attention.heads / attention.k.kv_heads;
  const int64_t first_head = int64_t{kv_head} * group_heads;
  const float* given = params.given +
                       ((token - params.first_token) * attention.heads + first_head) *
                           params.given_stride +
                       seen.first_entry;
  const float2* softmax = attention.softmax + token * attention.heads + first_head;
  const int count = seen.end_entry - seen.first_entry;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
    float sum = 0;
#pragma unroll 8
    for (int head = 0; head < group_heads; ++head) {
      const float score = given[head * params.given_stride + i];
      const float weight = exp2f(__fmaf_rn(score, attention.scale_log2, -softmax[head].x));
      sum = __fadd_rn(sum, __fdiv_rn(weight, softmax[head].y));
    }
    mass[i] = sum;
  }
  __syncthreads();
}

// Grid as above, blocks of any number of threads up to 1024. Dynamic shared memory: one number a
// choice, then, where params.mass is null, one an entry and one a block.
__global__ void __launch_bounds__(1024)
    NsaChooseGivenKernel(const __grid_constant__ NsaChoiceParams params) {
  extern __shared__ __align__(16) float attention_shared[];
  WaitForEarlierKernels();
  LetNextKernelBegin();
  const AttentionParams& attention = params.attention;
  const int64_t token = params.first_token + static_cast<int64_t>(blockIdx.x);
  const auto kv_head = static_cast<int>(blockIdx.y);
  int32_t* selected =
      params.selected + (token * attention.k.kv_heads + kv_head) * params.sizes.selected_blocks;
  if (ClearClosedGroup(params, token, kv_head, selected)) return;
  auto* chosen = reinterpret_cast<int*>(attention_shared);
  float* mass = attention_shared + params.sizes.selected_blocks;
  float* scores = mass + params.most_entries;
  if (params.mass != nullptr) {
    const int64_t place = static_cast<int64_t>(blockIdx.x) * attention.k.kv_heads + kv_head;
    mass = params.mass + place * params.most_entries;
    scores = params.scores + place * params.most_blocks;
  }
  const SeenEntries seen = FindSeen<Seen::kCompressed>(attention, token, kv_head);
  SumGivenMass(params, token, kv_head, seen, mass);
  ScoreAndChoose(params, token, seen, mass, scores, chosen, selected);
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_NSA_SELECT_NSA_SELECT_CUH_
