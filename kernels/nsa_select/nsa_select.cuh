// Device code of kernels/nsa_select/nsa_select.h that follows the compression branch's attention:
// P, S and the choice of blocks, one block of threads a token and KV head.
//
// Invariant: P[i] is summed head by head and S[j] by ascending i, so that equal scores tie exactly.
#ifndef TROUPE_KERNELS_NSA_SELECT_NSA_SELECT_CUH_
#define TROUPE_KERNELS_NSA_SELECT_NSA_SELECT_CUH_

#include <climits>

#include "kernels/cuda/attention_units_kernel.cuh"
#include "kernels/nsa_select/nsa_select.h"

namespace troupe {

struct NsaChoiceParams {
  AttentionParams attention;  // with `softmax`
  NsaSizes sizes;
  int64_t most_entries = 0;
  int64_t most_blocks = 0;
  int first_token = 0;           // of the tokens that share the scratch
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
__device__ __forceinline__ float BlockScore(const NsaSizes& sizes, const float* mass, int count,
                                            int j) {
  const int stride = sizes.compress_stride;
  const int block =
      sizes.compress_block / stride;  // all in strides, of which blocks have whole ones
  const int begin = j * (kBlockTokens / stride);
  const int end = begin + kBlockTokens / stride;
  float score = 0;
  for (int i = max(0, begin - block + 1); i < count && i < end; ++i) {
    const int shared_strides = min(i + block, end) - max(i, begin);
    score = __fmaf_rn(static_cast<float>(shared_strides), mass[i], score);
  }
  return score;
}

// A candidate's rank in a warp's search: scores are not negative, so their bits are in order.
struct NsaCandidate {
  uint32_t rank = 0;  // 0: none
  int block = 0;
};

// The best of every 32nd candidate from the lane's number on, the first of equal ones. Scores of
// blocks that were taken are negative.
__device__ __forceinline__ NsaCandidate BestOfLane(const float* scores, int count, int lane) {
  NsaCandidate best;
#pragma unroll 4
  for (int j = lane; j < count; j += kWarpSize) {
    const float score = scores[j];
    const uint32_t rank = score < 0 ? 0 : __float_as_uint(score) + 1;
    if (rank > best.rank) best = {rank, j};
  }
  return best;
}

// The same for one lane, by all of them.
__device__ __forceinline__ NsaCandidate BestOfLaneByAll(const float* scores, int count, int of_lane,
                                                        int lane) {
  NsaCandidate best;
  for (int j = of_lane + lane * kWarpSize; j < count; j += kWarpSize * kWarpSize) {
    const float score = scores[j];
    const uint32_t rank = score < 0 ? 0 : __float_as_uint(score) + 1;
    if (rank > best.rank) best = {rank, j};
  }
  const uint32_t rank = __reduce_max_sync(kAllLanes, best.rank);
  return {rank, __reduce_min_sync(kAllLanes, best.rank == rank ? best.block : INT_MAX)};
}

// Chooses among the blocks 0 .. own and writes them in ascending order: the highest scores, ties to
// the lower block. Scores that were taken are replaced by -1. `chosen` has room for every choice.
// Called by all threads; the first warp does it.
__device__ __forceinline__ void ChooseBlocks(const NsaSizes& sizes, float* scores, int own,
                                             int* chosen, int32_t* selected) {
  if (threadIdx.x >= kWarpSize) return;
  const auto lane = static_cast<int>(threadIdx.x);
  const int count = min(own + 1, sizes.selected_blocks);
  const int initial = min(sizes.initial_blocks, own + 1);
  const int local = max(initial, own - sizes.local_blocks + 1);
  const int always = min(count, initial + own + 1 - local);
  for (int i = lane; i < always; i += kWarpSize) {
    const int block = i < initial ? i : local + i - initial;
    chosen[i] = block;
    scores[block] = -1;
  }
  __syncwarp();
  NsaCandidate mine = BestOfLane(scores, own + 1, lane);
  for (int taken = always; taken < count; ++taken) {
    const uint32_t rank = __reduce_max_sync(kAllLanes, mine.rank);
    const int block = __reduce_min_sync(kAllLanes, mine.rank == rank ? mine.block : INT_MAX);
    const int owner = block % kWarpSize;
    if (lane == owner) {
      chosen[taken] = block;
      scores[block] = -1;
    }
    __syncwarp();
    const NsaCandidate next = BestOfLaneByAll(scores, own + 1, owner, lane);
    if (lane == owner) mine = next;
  }
  __syncwarp();
  for (int i = lane; i < sizes.selected_blocks; i += kWarpSize) {
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

// What turns a head's scores into weights: its largest score, negative, and one over the sum of
// weights. Where attention has left parts, they are merged here as they are for its results.
__device__ __forceinline__ float2 FindNormaliser(const UnitAttentionParams& unit, int64_t token,
                                                 int head, const SeenEntries& seen) {
  const AttentionParams& attention = unit.attention;
  PartMerge merge = {-INFINITY, 0};
  if (unit.partial_softmax == nullptr) {
    const float2 softmax = attention.softmax[token * attention.heads + head];
    merge = {softmax.x, softmax.y};
  } else {
    const float2* parts = unit.partial_softmax + PartialPlace(unit, token, head, 0);
    const int end = PartsOfTiles(seen.end_tile);
#pragma unroll 8
    for (int part = PartOfTile(seen.first_tile); part < end; ++part) {
      AddPart(merge, {parts[part].x, parts[part].y});
    }
  }
  return {-merge.largest, __frcp_rn(merge.sum)};
}

// The attention of a token's heads from its parts, a warp a head at a time. As
// MergeUnitPartsKernel; here it runs beside the choice of blocks.
__device__ __forceinline__ void MergeToken(const UnitAttentionParams& unit, int64_t token) {
  const AttentionParams& attention = unit.attention;
  const int head_dim = attention.v.head_dim;
  const SeenEntries seen = FindSeen<Seen::kCompressed>(attention, token, /*kv_head=*/0);
  const bool accumulate = attention.mix.accumulate;
  const auto warps = static_cast<int>(blockDim.x) / kWarpSize;
  for (int head = static_cast<int>(threadIdx.x) / kWarpSize; head < attention.heads;
       head += warps) {
    const float factor = FactorOf(attention.mix, token, head);
    const int64_t row = PartialPlace(unit, token, head, 0);
    for (int channel = static_cast<int>(threadIdx.x) % kWarpSize * 4; channel < head_dim;
         channel += kMergeChannels) {
      float* out = attention.out + token * attention.out_stride + head * head_dim + channel;
      MergingSums merging;
      if (factor != 0) {
        merging.AddAll(unit, seen, attention.partial + row * head_dim + channel,
                       unit.partial_softmax + row, head_dim);
      } else if (accumulate) {
        continue;
      }
      const float sums[4] = {merging.sums.x, merging.sums.y, merging.sums.z, merging.sums.w};
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const float result = FinishUnit(sums[c], 1, merging.merge.sum, factor);
        out[c] = __fadd_rn(accumulate ? out[c] : 0.0F, result);
      }
    }
  }
}

// P from scores that attention has left (UnitAttentionParams), which it scales with
// attention.scale_log2: `given` [tokens from first_token on, H, given_stride].
__device__ __forceinline__ void SumGivenMass(const NsaChoiceParams& params,
                                             const UnitAttentionParams& unit, int64_t token,
                                             int kv_head, const SeenEntries& seen,
                                             float2* normalisers, float* mass) {
  const AttentionParams& attention = params.attention;
  const int group_heads = attention.heads / attention.k.kv_heads;
  const int64_t first_head = int64_t{kv_head} * group_heads;
  const float* given =
      params.given +
      ((token - params.first_token) * attention.heads + first_head) * params.given_stride +
      seen.first_entry;
  for (int head = static_cast<int>(threadIdx.x); head < group_heads;
       head += static_cast<int>(blockDim.x)) {
    normalisers[head] = FindNormaliser(unit, token, static_cast<int>(first_head) + head, seen);
  }
  __syncthreads();
  const int count = seen.end_entry - seen.first_entry;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
    float sum = 0;
#pragma unroll 8
    for (int head = 0; head < group_heads; ++head) {
      const float score = given[head * params.given_stride + i];
      const float2 normaliser = normalisers[head];
      const float weight = Exp2(__fmaf_rn(score, attention.scale_log2, normaliser.x));
      sum = __fmaf_rn(weight, normaliser.y, sum);
    }
    mass[i] = sum;
  }
  __syncthreads();
}

// Grid as above, and one more in y where `unit` has parts to merge, blocks of any number of threads
// up to 1024. Dynamic shared memory: two numbers a
// head of a group, one a choice, then, where params.mass is null, one an entry and one a block.
__global__ void __launch_bounds__(1024)
    NsaChooseGivenKernel(const __grid_constant__ NsaChoiceParams params,
                         const __grid_constant__ UnitAttentionParams unit) {
  extern __shared__ __align__(16) float attention_shared[];
  WaitForEarlierKernels();
  LetNextKernelBegin();
  const AttentionParams& attention = params.attention;
  const int64_t token = params.first_token + static_cast<int64_t>(blockIdx.x);
  const auto kv_head = static_cast<int>(blockIdx.y);
  if (kv_head == attention.k.kv_heads) {
    MergeToken(unit, token);
    return;
  }
  int32_t* selected =
      params.selected + (token * attention.k.kv_heads + kv_head) * params.sizes.selected_blocks;
  if (ClearClosedGroup(params, token, kv_head, selected)) return;
  auto* normalisers = reinterpret_cast<float2*>(attention_shared);
  auto* chosen = reinterpret_cast<int*>(normalisers + attention.heads / attention.k.kv_heads);
  auto* mass = reinterpret_cast<float*>(chosen + params.sizes.selected_blocks);
  float* scores = mass + params.most_entries;
  if (params.mass != nullptr) {
    const int64_t place = static_cast<int64_t>(blockIdx.x) * attention.k.kv_heads + kv_head;
    mass = params.mass + place * params.most_entries;
    scores = params.scores + place * params.most_blocks;
  }
  const SeenEntries seen = FindSeen<Seen::kCompressed>(attention, token, kv_head);
  SumGivenMass(params, unit, token, kv_head, seen, normalisers, mass);
  ScoreAndChoose(params, token, seen, mass, scores, chosen, selected);
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_NSA_SELECT_NSA_SELECT_CUH_
