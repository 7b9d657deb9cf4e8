// The kernels of kernels/cuda/attention.cuh, and their launch.
#ifndef TROUPE_KERNELS_CUDA_ATTENTION_KERNEL_CUH_
#define TROUPE_KERNELS_CUDA_ATTENTION_KERNEL_CUH_

#include "base/check.h"
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/context.cuh"

namespace troupe {

// What one thread keeps of the parts that it has been through.
template <int kChannels>
struct MergedParts {
  HeadSums<kChannels> sums;
  PartMerge merge[kAttentionHeads];
  bool any = false;

  __device__ void Add(const HeadSums<kChannels>& next, const float* largest, const float* sum,
                      const SumShare& share, int heads) {
#pragma unroll
    for (int i = 0; i < kAttentionHeads; ++i) {
      const int head = share.first_head + i * share.head_step;
      if (head >= heads) continue;
      if (!any) {
        merge[i] = {largest[head], sum[head]};
#pragma unroll
        for (int c = 0; c < kChannels; ++c) sums[i][c] = next[i][c];
        continue;
      }
      const float2 factors = merge[i].Add(largest[head], sum[head]);
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        sums[i][c] = MergeSums(sums[i][c], next[i][c], factors);
      }
    }
    any = true;
  }
};

// Where a block stands: its token, heads and tiles.
struct AttentionBlock {
  int64_t token;
  int kv_head;
  int first_head;  // of the block's heads
  int heads;       // open ones
  int first_tile;
  int end_tile;
};

// Walks over the block's tiles; `visit_part` is called after each part with the thread's sums.
template <class Element, Seen kSeen, int kChannels, class Visit>
__device__ void WalkTiles(const AttentionParams& params, const AttentionBlock& block,
                          const SeenEntries& seen, const AttentionShared<Element>& shared,
                          const SumShare& share, const Visit& visit_part) {
  const uint32_t slot = params.batch.slot[params.batch.token_row[block.token]];
  const auto start = [&](int tile) {
    const int stage = (tile - block.first_tile) % params.stages;
    const int first = TileEntry<kSeen>(params, block.token, block.kv_head, tile);
    StartTile<Element>(params.k, params.tables, slot, block.kv_head, first, seen,
                       shared.KeyTile(stage), shared.key_row_bytes);
    if (params.values_in_keys) return;
    StartTile<Element>(params.v, params.tables, slot, block.kv_head, first, seen,
                       shared.ValueTile(stage), shared.value_row_bytes);
  };
  if (block.first_tile < block.end_tile) start(block.first_tile);
  CommitCopies();
  HeadSums<kChannels> sums;
  for (int tile = block.first_tile; tile < block.end_tile; ++tile) {
    if (tile == block.first_tile || tile % kAttentionPartTiles == 0) {
      if (threadIdx.x < kAttentionHeads) {
        shared.largest[threadIdx.x] = -INFINITY;
        shared.sum[threadIdx.x] = 0;
      }
#pragma unroll
      for (int i = 0; i < kAttentionHeads; ++i) {
#pragma unroll
        for (int c = 0; c < kChannels; ++c) sums[i][c] = 0;
      }
    }
    const bool more = tile + 1 < block.end_tile;
    if (params.stages > 1 && more) start(tile + 1);
    CommitCopies();  // an empty group keeps the count of groups
    WaitForCopies<1>();
    __syncthreads();
    const int stage = (tile - block.first_tile) % params.stages;
    ScoreTile(shared, shared.KeyTile(stage), block.heads, params.scale_log2,
              TileEntry<kSeen>(params, block.token, block.kv_head, tile), seen);
    __syncthreads();
    WeighTile(shared, block.heads);
    __syncthreads();
    SumTile<Element, kChannels>(shared, shared.ValueTile(stage), params.v.head_dim, block.heads,
                                share, sums);
    __syncthreads();
    if (params.stages == 1 && more) start(tile + 1);
    if (params.stages == 1) CommitCopies();
    if (!more || (tile + 1) % kAttentionPartTiles == 0) {
      visit_part(sums);
      __syncthreads();
    }
  }
}

template <class Element>
__device__ void LoadQueries(const AttentionParams& params, const AttentionBlock& block,
                            const AttentionShared<Element>& shared) {
  const int stride = shared.key_stride;
  for (int i = static_cast<int>(threadIdx.x); i < block.heads * stride; i += kAttentionThreads) {
    const int head = block.first_head + shared.open[i / stride];
    const int channel = i % stride;
    const float* q = params.q + block.token * params.q_stride + head * params.k.head_dim;
    shared.q[i] = channel < params.k.head_dim ? q[channel] : 0.0F;
  }
  // The first barrier of WalkTiles stands between this and its use.
}

// A closed head adds nothing; where results are not added to, it stores zeros.
inline __device__ void ClearClosed(const AttentionParams& params, int64_t token, int first_head,
                                   int heads, int open, const int* open_heads) {
  if (params.mix.accumulate || open == heads) return;
  const int head_dim = params.v.head_dim;
  int next = 0;
  for (int h = 0; h < heads; ++h) {
    if (next < open && open_heads[next] == h) {
      ++next;
      continue;
    }
    float* out = params.out + token * params.out_stride + (first_head + h) * head_dim;
    for (int c = static_cast<int>(threadIdx.x); c < head_dim; c += kAttentionThreads) out[c] = 0;
  }
}

// Grid: tokens in x, KV heads and slices of their query heads in y, parts in z.
template <class Element, Seen kSeen, int kChannels>
__global__ void __launch_bounds__(kAttentionThreads) AttentionKernel(AttentionParams params) {
  extern __shared__ __align__(16) float attention_shared[];
  const int head_dim = params.v.head_dim;
  const AttentionShared<Element> shared(attention_shared, params);
  const int group_heads = params.heads / params.k.kv_heads;
  const int slice = static_cast<int>(blockIdx.y) % params.slices;
  AttentionBlock block;
  block.token = blockIdx.x;
  block.kv_head = static_cast<int>(blockIdx.y) / params.slices;
  block.first_head = block.kv_head * group_heads + slice * kAttentionHeads;
  const int heads = min(kAttentionHeads, group_heads - slice * kAttentionHeads);
  block.heads = FindOpenHeads<kSeen>(params, block.token, block.kv_head * group_heads,
                                     block.first_head, heads, shared.open);
  const bool whole = params.parts == 1;
  if (whole) ClearClosed(params, block.token, block.first_head, heads, block.heads, shared.open);
  if (block.heads == 0) return;

  const SeenEntries seen = FindSeen<kSeen>(params, block.token, block.kv_head);
  const int part = static_cast<int>(blockIdx.z);
  block.first_tile = seen.first_tile;
  block.end_tile = seen.end_tile;
  if (!whole) {
    block.first_tile = max(block.first_tile, part * kAttentionPartTiles);
    block.end_tile = min(block.end_tile, (part + 1) * kAttentionPartTiles);
    if (block.first_tile >= block.end_tile) return;
  }
  LoadQueries(params, block, shared);
  const SumShare share(head_dim);
  MergedParts<kChannels> merged;
  WalkTiles<Element, kSeen, kChannels>(
      params, block, seen, shared, share, [&](const HeadSums<kChannels>& sums) {
        merged.Add(sums, shared.largest, shared.sum, share, block.heads);
      });
#pragma unroll
  for (int i = 0; i < kAttentionHeads; ++i) {
    const int at = share.first_head + i * share.head_step;
    if (at >= block.heads) continue;
    const PartMerge merge = merged.any ? merged.merge[i] : PartMerge{-INFINITY, 0};
    const int64_t head = block.first_head + shared.open[at];
    const int64_t row = block.token * params.heads + head;
    float* partial =
        whole ? nullptr : params.partial + (row * params.parts + part) * (head_dim + 2);
    if (share.channel == 0) {
      if (!whole) {
        partial[head_dim] = merge.largest;
        partial[head_dim + 1] = merge.sum;
      } else if (params.softmax != nullptr) {
        params.softmax[row] = {merge.largest, merge.sum};
      }
    }
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      const int channel = share.channel + c * kAttentionThreads;
      if (channel >= head_dim) continue;
      const float value = merged.any ? merged.sums[i][c] : 0.0F;
      if (whole) {
        StoreHead(params, block.token, head, channel, merge, value);
      } else {
        partial[channel] = value;
      }
    }
  }
}

// Grid: tokens in x, query heads in y. Merges the parts of a token and head in order.
template <Seen kSeen>
__global__ void __launch_bounds__(kAttentionThreads) MergePartsKernel(AttentionParams params) {
  const int64_t token = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y);
  const int group_heads = params.heads / params.k.kv_heads;
  const int kv_head = head / group_heads;
  const int head_dim = params.v.head_dim;
  __shared__ int open[1];
  const int found =
      FindOpenHeads<kSeen>(params, token, kv_head * group_heads, head, /*heads=*/1, open);
  ClearClosed(params, token, head, 1, found, open);
  if (found == 0) return;
  const SeenEntries seen = FindSeen<kSeen>(params, token, kv_head);
  const int first_part = seen.first_tile / kAttentionPartTiles;
  const int end_part = (seen.end_tile + kAttentionPartTiles - 1) / kAttentionPartTiles;
  const int64_t row = token * params.heads + head;
  const float* partial = params.partial + row * params.parts * (head_dim + 2);
  for (int channel = static_cast<int>(threadIdx.x); channel < head_dim;
       channel += kAttentionThreads) {
    PartMerge merge = {-INFINITY, 0};
    float value = 0;
    for (int part = first_part; part < end_part; ++part) {
      const float* from = partial + static_cast<int64_t>(part) * (head_dim + 2);
      if (part == first_part) {
        merge = {from[head_dim], from[head_dim + 1]};
        value = from[channel];
      } else {
        const float2 factors = merge.Add(from[head_dim], from[head_dim + 1]);
        value = MergeSums(value, from[channel], factors);
      }
    }
    if (channel == 0 && params.softmax != nullptr) {
      params.softmax[row] = {merge.largest, merge.sum};
    }
    StoreHead(params, token, head, channel, merge, value);
  }
}

// Fills in how the work is cut, and launches. `most_tiles`: that any token sees.
template <Seen kSeen>
void LaunchAttention(AttentionParams params, int64_t most_tiles, const CudaContext& context) {
  const KvStream& k = params.k;
  CHECK_EQ(params.heads % k.kv_heads, 0);
  CHECK_EQ(kAttentionTile % k.entries_per_page, 0);
  CHECK_EQ(k.kv_heads, params.v.kv_heads);
  CHECK_EQ(k.entries_per_page, params.v.entries_per_page);
  CHECK(k.dtype == params.v.dtype) << "keys and values of different dtypes";
  CHECK_LE(params.v.head_dim, 4 * kAttentionThreads) << "head size of values";
  if (params.batch.tokens == 0) return;
  const AttentionChoice choice = ChooseAttention({.tokens = params.batch.tokens,
                                                  .kv_heads = k.kv_heads,
                                                  .group_heads = params.heads / k.kv_heads,
                                                  .most_tiles = most_tiles,
                                                  .key_dim = k.head_dim,
                                                  .value_dim = params.v.head_dim,
                                                  .element_bytes = BytesOf(k.dtype),
                                                  .values_in_keys = params.values_in_keys},
                                                 context.multiprocessors);
  CHECK_GE(choice.shared_bytes, 0) << "head size " << k.head_dim;
  params.slices = choice.slices;
  params.parts = choice.parts;
  params.stages = choice.stages;
  const auto tokens = static_cast<unsigned>(params.batch.tokens);
  if (params.parts > 1) {
    params.partial = context.scratch.Take<float>(int64_t{params.batch.tokens} * params.heads *
                                                 params.parts * (params.v.head_dim + 2));
    if (!context.errors.ok()) return;
  }
  const dim3 grid(tokens, static_cast<unsigned>(k.kv_heads * params.slices),
                  static_cast<unsigned>(params.parts));
  const auto launch = [&](auto* kernel) {
    AllowSharedMemory(kernel, choice.shared_bytes, context.errors);
    kernel<<<grid, kAttentionThreads, choice.shared_bytes, context.stream>>>(params);
  };
  WithElement(k.dtype, [&](auto element) {
    using Element = decltype(element);
    if (params.v.head_dim <= kAttentionThreads) {
      launch(AttentionKernel<Element, kSeen, 1>);
    } else if (params.v.head_dim <= 2 * kAttentionThreads) {
      launch(AttentionKernel<Element, kSeen, 2>);
    } else {
      launch(AttentionKernel<Element, kSeen, 4>);
    }
  });
  if (params.parts > 1) {
    const dim3 merge_grid(tokens, static_cast<unsigned>(params.heads));
    MergePartsKernel<kSeen><<<merge_grid, kAttentionThreads, 0, context.stream>>>(params);
  }
}

// Tiles that the longest sequence may have.
inline int64_t TilesOfTables(const BatchView& batch, const BlockTables& tables,
                             int entries_per_page) {
  const int64_t blocks = batch.longest > 0 ? CeilDiv(batch.longest, kBlockTokens) : tables.stride;
  return CeilDiv(blocks * entries_per_page, kAttentionTile);
}

// What the three operations' parameters have in common.
template <class Params>
AttentionParams CommonAttention(const Params& from) {
  AttentionParams params;
  CHECK_EQ(from.q.rows, from.batch.tokens);
  CHECK_EQ(from.q.cols, int64_t{from.heads} * from.k.head_dim);
  CHECK_EQ(from.out.rows, from.batch.tokens);
  CHECK_EQ(from.out.cols, int64_t{from.heads} * from.v.head_dim);
  params.batch = from.batch;
  params.heads = from.heads;
  params.scale_log2 = from.scale * kLog2E;
  params.q = static_cast<const float*>(from.q.data);
  params.q_stride = from.q.stride;
  params.k = from.k;
  params.v = from.v;
  params.tables = from.tables;
  params.mix = from.mix;
  params.out = static_cast<float*>(from.out.data);
  params.out_stride = from.out.stride;
  return params;
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_ATTENTION_KERNEL_CUH_
