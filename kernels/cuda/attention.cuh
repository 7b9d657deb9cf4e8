// Attention of one token to the entries that it sees, in f32: what paged attention, NSA's selection
// branch and NSA's compression branch have in common. They differ in which tiles a token sees.
//
// A block has one token and up to 8 query heads of one KV head. 128 threads load a tile of 64 keys
// and values, then form scores (a thread a key), weights (a warp a head) and sums (a thread a
// channel). Closed heads are left out; a block of closed heads loads nothing.
//
// Invariants: nothing is read outside of the entries that a token sees, nor the pages that hold
// none; every sum runs in an order that the token's position alone decides (attention_choice.h).
#ifndef TROUPE_KERNELS_CUDA_ATTENTION_CUH_
#define TROUPE_KERNELS_CUDA_ATTENTION_CUH_

#include "kernels/cuda/attention_choice.h"
#include "kernels/cuda/pages.cuh"
#include "kernels/tensor.h"

namespace troupe {

inline constexpr int kAttentionThreads = 128;
inline constexpr float kLog2E = 1.4426950408889634F;

enum class Seen : uint8_t { kWindow, kSelected, kCompressed };

struct AttentionParams {
  BatchView batch;
  int heads = 0;
  float scale_log2 = 0;  // scores are powers of two: scale * log2(e)
  const float* q = nullptr;
  int64_t q_stride = 0;
  KvStream k;
  KvStream v;
  BlockTables tables;
  bool values_in_keys = false;  // a value is the beginning of its key; only v.head_dim counts
  HeadMix mix;                  // without factors: all are one
  float* out = nullptr;
  int64_t out_stride = 0;
  const float* sinks = nullptr;  // [H] a score each beside those of the keys; null: none

  int window = 0;                     // kWindow: tokens, 0: all
  const int32_t* selected = nullptr;  // kSelected: [T, G, selected_blocks]
  int selected_blocks = 0;
  int stride = 0;  // kCompressed: tokens between entries
  int shift = 0;   // kCompressed: the first entry

  int slices = 1;
  int parts = 1;
  int stages = 1;
  float* partial = nullptr;   // [T, H, parts, Dv + 2] where parts > 1: sums, largest, weight
  float2* softmax = nullptr;  // [T, H] out: largest score and sum of weights; may be null
};

// The tiles and entries that a token sees; both ranges without their end.
struct SeenEntries {
  int first_entry;
  int end_entry;
  int first_tile;
  int end_tile;
};

// How many blocks of a list are named; -1 pads it at the end.
__device__ __forceinline__ int CountSelected(const int32_t* blocks, int most) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  int count = 0;
  for (int first = 0; first < most; first += kWarpSize) {
    const bool named = first + lane < most && blocks[first + lane] >= 0;
    count += __popc(__ballot_sync(kAllLanes, named));
  }
  return count;
}

// Called by whole warps.
template <Seen kSeen>
__device__ __forceinline__ SeenEntries FindSeen(const AttentionParams& params, int64_t token,
                                                int kv_head) {
  const int position = params.batch.position[token];
  SeenEntries seen = {0, position + 1, 0, 0};
  if constexpr (kSeen == Seen::kSelected) {
    const int64_t list = (token * params.k.kv_heads + kv_head) * params.selected_blocks;
    seen.end_tile = CountSelected(params.selected + list, params.selected_blocks);
    return seen;
  }
  if constexpr (kSeen == Seen::kWindow) {
    if (params.window > 0) seen.first_entry = max(0, position - params.window + 1);
  } else {
    seen.first_entry = params.shift;
    seen.end_entry = max(params.shift, (position + 1) / params.stride);
  }
  if (seen.first_entry == seen.end_entry) return seen;
  seen.first_tile = seen.first_entry / kAttentionTile;
  seen.end_tile = (seen.end_entry - 1) / kAttentionTile + 1;
  return seen;
}

// The first entry of a tile.
template <Seen kSeen>
__device__ __forceinline__ int TileEntry(const AttentionParams& params, int64_t token, int kv_head,
                                         int tile) {
  if constexpr (kSeen == Seen::kSelected) {
    const int64_t list = (token * params.k.kv_heads + kv_head) * params.selected_blocks;
    return params.selected[list + tile] * kAttentionTile;
  } else {
    return tile * kAttentionTile;
  }
}

// Shared memory of a block; see AttentionSharedBytes.
template <class Element>
struct AttentionShared {
  float* q;        // [heads, key_stride], zeros behind a query's end
  float* weights;  // [heads, 64]: scores, then weights
  float* largest;  // [heads] of the part so far
  float* sum;      // [heads] of weights so far
  float* rescale;  // [heads] of what was summed before the tile
  int* open;       // [heads] the open heads, of the block's
  std::byte* keys;
  std::byte* values;
  int key_stride;  // elements of a key, padded; those behind its end are zero
  int64_t key_row_bytes;
  int64_t value_row_bytes;

  __device__ AttentionShared(float* shared, const AttentionParams& params)
      : q(shared),
        key_stride(
            static_cast<int>(PaddedRowBytes(params.k.head_dim, sizeof(Element)) / sizeof(Element))),
        key_row_bytes(key_stride * static_cast<int64_t>(sizeof(Element)) + 16),
        value_row_bytes(params.values_in_keys
                            ? key_row_bytes
                            : PaddedRowBytes(params.v.head_dim, sizeof(Element))) {
    weights = q + kAttentionHeads * key_stride;
    largest = weights + kAttentionHeads * kAttentionTile;
    sum = largest + kAttentionHeads;
    rescale = sum + kAttentionHeads;
    open = reinterpret_cast<int*>(rescale + kAttentionHeads);
    keys = reinterpret_cast<std::byte*>(largest + kAttentionHeads * 8);
    values = params.values_in_keys ? keys : keys + params.stages * kAttentionTile * key_row_bytes;
  }

  __device__ std::byte* KeyTile(int stage) const {
    return keys + stage * kAttentionTile * key_row_bytes;
  }
  __device__ std::byte* ValueTile(int stage) const {
    return values + stage * kAttentionTile * value_row_bytes;
  }
};

// Whether rows may be copied 16 bytes at a time.
template <class Element>
__device__ __forceinline__ bool RowsAreWhole(const KvStream& stream) {
  return stream.head_dim * sizeof(Element) % 16 == 0 && stream.page_bytes % 16 == 0 &&
         reinterpret_cast<uintptr_t>(stream.base) % 16 == 0;
}

// Starts to copy 64 entries of one head, from `first` on, to rows in shared memory, zeros where the
// token sees none and behind a row's end. The token sees one of them at least.
template <class Element>
__device__ void StartTile(const KvStream& stream, const BlockTables& tables, uint32_t slot,
                          int kv_head, int first, const SeenEntries& seen, std::byte* to,
                          int64_t to_row_bytes) {
  constexpr int kUnit = 16 / sizeof(Element);
  const int chunks = (stream.head_dim + kUnit - 1) / kUnit;
  const bool whole = RowsAreWhole<Element>(stream);
  const bool one_page = stream.entries_per_page == kAttentionTile;
  const Element* start = one_page ? EntryAt<Element>(stream, tables, slot, first, kv_head)
                                  : reinterpret_cast<const Element*>(stream.base);
  const auto copy = [&](int row, int channel) {
    const int entry = first + row;
    const bool valid = entry >= seen.first_entry && entry < seen.end_entry;
    const Element* from = start;
    if (one_page) {
      from += row * stream.head_dim + channel;
    } else if (valid) {
      from = EntryAt<Element>(stream, tables, slot, entry, kv_head) + channel;
    }
    auto* chunk = reinterpret_cast<Element*>(to + row * to_row_bytes) + channel;
    if (whole) {
      CopyAsync16(chunk, from, valid);
      return;
    }
    for (int c = 0; c < kUnit; ++c) {
      chunk[c] = valid && channel + c < stream.head_dim ? from[c] : Narrow<Element>(0);
    }
  };
  const auto thread = static_cast<int>(threadIdx.x);
  if (kAttentionThreads % chunks == 0) {
    // The usual sizes: each thread keeps to its channels, and nothing is divided on the way.
    const int channel = thread % chunks * kUnit;
    for (int row = thread / chunks; row < kAttentionTile; row += kAttentionThreads / chunks) {
      copy(row, channel);
    }
  } else {
    for (int i = thread; i < kAttentionTile * chunks; i += kAttentionThreads) {
      copy(i / chunks, i % chunks * kUnit);
    }
  }
}

// Scores of a tile, -inf where the token sees no entry: `weights` [heads, 64].
template <class Element>
__device__ void ScoreTile(const AttentionShared<Element>& shared, const std::byte* keys, int heads,
                          float scale_log2, int first, const SeenEntries& seen) {
  constexpr int kUnit = 16 / sizeof(Element);
  constexpr int kSides = kAttentionThreads / kAttentionTile;
  constexpr int kMine = kAttentionHeads / kSides;
  const int key = static_cast<int>(threadIdx.x) % kAttentionTile;
  const int side = static_cast<int>(threadIdx.x) / kAttentionTile;
  const auto* row = reinterpret_cast<const Element*>(keys + key * shared.key_row_bytes);
  float scores[kMine] = {};
  for (int c = 0; c < shared.key_stride; c += kUnit) {
    float k[kUnit];
    LoadElements<kUnit>(row + c, k);
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      const int head = side + i * kSides;
      if (head >= heads) continue;
      float q[kUnit];
      LoadElements<kUnit>(shared.q + head * shared.key_stride + c, q);
#pragma unroll
      for (int u = 0; u < kUnit; ++u) scores[i] = __fmaf_rn(q[u], k[u], scores[i]);
    }
  }
  const bool valid = first + key >= seen.first_entry && first + key < seen.end_entry;
#pragma unroll
  for (int i = 0; i < kMine; ++i) {
    const int head = side + i * kSides;
    if (head >= heads) continue;
    shared.weights[head * kAttentionTile + key] = valid ? scores[i] * scale_log2 : -INFINITY;
  }
}

// Scores become weights against the largest score of the part so far. A tile has an entry that the
// token sees, so `largest` is finite afterwards.
template <class Element>
__device__ void WeighTile(const AttentionShared<Element>& shared, int heads) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  for (int head = warp; head < heads; head += kAttentionThreads / kWarpSize) {
    float* weights = shared.weights + head * kAttentionTile;
    const float low = weights[lane];
    const float high = weights[lane + kWarpSize];
    const float before = shared.largest[head];
    const float largest = fmaxf(before, WarpMax(fmaxf(low, high)));
    const float low_weight = exp2f(low - largest);
    const float high_weight = exp2f(high - largest);
    weights[lane] = low_weight;
    weights[lane + kWarpSize] = high_weight;
    const float sum = WarpSum(low_weight + high_weight);
    __syncwarp();  // every lane has read what the first one replaces
    if (lane == 0) {
      const float rescale = exp2f(before - largest);
      shared.rescale[head] = rescale;
      shared.sum[head] = __fmaf_rn(shared.sum[head], rescale, sum);
      shared.largest[head] = largest;
    }
  }
}

// Which channels and heads a thread sums: channels `channel` + 128 i of the heads `first_head`,
// `first_head` + `head_step`, ...
struct SumShare {
  int channel;
  int first_head;
  int head_step;

  __device__ explicit SumShare(int head_dim) {
    int width = 16;
    while (width < head_dim && width < kAttentionThreads) width *= 2;
    head_step = kAttentionThreads / width;
    channel = static_cast<int>(threadIdx.x) % width;
    first_head = static_cast<int>(threadIdx.x) / width;
  }
};

// Sums of values in progress: [heads of this thread][channels of this thread].
template <int kChannels>
using HeadSums = float[kAttentionHeads][kChannels];

template <class Element, int kChannels>
__device__ void SumTile(const AttentionShared<Element>& shared, const std::byte* values,
                        int head_dim, int heads, const SumShare& share, HeadSums<kChannels>& sums) {
#pragma unroll
  for (int i = 0; i < kAttentionHeads; ++i) {
    const int head = share.first_head + i * share.head_step;
    if (head >= heads) continue;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) sums[i][c] *= shared.rescale[head];
  }
  for (int key = 0; key < kAttentionTile; key += 4) {
    float v[4][kChannels];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const auto* row =
          reinterpret_cast<const Element*>(values + (key + k) * shared.value_row_bytes);
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        const int channel = share.channel + c * kAttentionThreads;
        v[k][c] = channel < head_dim ? Widen(row[channel]) : 0.0F;
      }
    }
#pragma unroll
    for (int i = 0; i < kAttentionHeads; ++i) {
      const int head = share.first_head + i * share.head_step;
      if (head >= heads) continue;
      float weights[4];
      LoadElements<4>(shared.weights + head * kAttentionTile + key, weights);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
          sums[i][c] = __fmaf_rn(weights[k], v[k][c], sums[i][c]);
        }
      }
    }
  }
}

// Softmax of some parts, one after another.
struct PartMerge {
  float largest;
  float sum;

  // How much what was merged so far, and the next part, count from now on.
  __device__ __forceinline__ float2 Add(float next_largest, float next_sum) {
    const float both = fmaxf(largest, next_largest);
    const float2 factors = {exp2f(largest - both), exp2f(next_largest - both)};
    sum = __fmaf_rn(sum, factors.x, __fmul_rn(next_sum, factors.y));
    largest = both;
    return factors;
  }
};

__device__ __forceinline__ float MergeSums(float before, float next, const float2& factors) {
  return __fmaf_rn(before, factors.x, __fmul_rn(next, factors.y));
}

__device__ __forceinline__ float FactorOf(const HeadMix& mix, int64_t token, int64_t head) {
  return mix.factor == nullptr ? 1.0F
                               : mix.factor[token * mix.token_stride + head * mix.head_stride];
}

// Puts down one channel of a token's head. A sum of weights of 0 means that the token sees nothing.
__device__ __forceinline__ void StoreHead(const AttentionParams& params, int64_t token,
                                          int64_t head, int channel, PartMerge merge, float value) {
  if (params.sinks != nullptr) value *= merge.Add(params.sinks[head] * kLog2E, 1).x;
  const float attended = merge.sum > 0 ? __fdiv_rn(value, merge.sum) : 0.0F;
  const float factor = FactorOf(params.mix, token, head);
  float* out = params.out + token * params.out_stride + head * params.v.head_dim + channel;
  *out = params.mix.accumulate ? __fmaf_rn(factor, attended, *out) : __fmul_rn(factor, attended);
}

// Whether a block has anything to attend to, and which of its heads take part: the open ones; for
// compressed entries all heads of a group that is not all closed, since all count for its scores.
template <Seen kSeen>
__device__ int FindOpenHeads(const AttentionParams& params, int64_t token, int group_first,
                             int first_head, int heads, int* open) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  bool any = false;
  if constexpr (kSeen == Seen::kCompressed) {
    const int group_heads = params.heads / params.k.kv_heads;
    for (int h = lane; h < group_heads; h += kWarpSize) {
      any = any || FactorOf(params.mix, token, group_first + h) != 0;
    }
    any = __any_sync(kAllLanes, any);
  }
  const bool is_open = lane < heads && (any || FactorOf(params.mix, token, first_head + lane) != 0);
  const unsigned found = __ballot_sync(kAllLanes, is_open);
  if (is_open && threadIdx.x < kWarpSize) open[__popc(found & ((1U << lane) - 1))] = lane;
  __syncthreads();
  return __popc(found);
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_ATTENTION_CUH_
