// The kernels of kernels/cuda/attention_units.cuh.
#ifndef TROUPE_KERNELS_CUDA_ATTENTION_UNITS_KERNEL_CUH_
#define TROUPE_KERNELS_CUDA_ATTENTION_UNITS_KERNEL_CUH_

#include "kernels/cuda/attention_units_rows.cuh"

namespace troupe {

// A computing warpgroup: starts products, and waits for what they need. While the sums of a tile
// are being formed, the next one's scores become weights.
template <class Sizes, Seen kSeen>
struct UnitComputer {
  const UnitAttentionParams& params;
  const UnitTask& task;
  const UnitShared<Sizes>& shared;
  uint32_t queries;  // address
  UnitQueries<Sizes> held;
  float scores[32];
  float sums[Sizes::kSums];
  uint32_t weights[4][4];
  UnitSoftmax softmax;
  UnitMerged<Sizes> merged;

  // Tile by tile, the ring has first the keys and then the values.
  __device__ __forceinline__ int KeysFill(int tile) const {
    return (tile - task.seen.first_tile) * 2;
  }

  __device__ __forceinline__ uint32_t AwaitSlot(int fill) {
    const int slot = fill % Sizes::kSlots;
    WaitFor(shared.full + slot, fill / Sizes::kSlots & 1);
    return SharedAddress(shared.slots + slot * Sizes::kSlotBytes);
  }

  // A slot may be filled again. All of the warp's products with it have ended.
  __device__ __forceinline__ void Release(int fill) {
    __syncwarp();
    if (threadIdx.x % kWarpSize == 0) Arrive(shared.empty + fill % Sizes::kSlots);
  }

  __device__ __forceinline__ void StartScores(int tile) {
    const uint32_t keys = AwaitSlot(KeysFill(tile));
    BeginProducts();
#pragma unroll
    for (int step = 0; step < Sizes::kKeyBlocks * 4; ++step) {
      const uint32_t at = step / 4 * kColumnBlockBytes + step % 4 * 32;
      if constexpr (Sizes::kQueriesInRegisters) {
        MultiplyColumns(scores, held.fragments[step], ColumnDescriptor(keys + at), step > 0);
      } else {
        MultiplyColumns(scores, ColumnDescriptor(queries + at), ColumnDescriptor(keys + at),
                        step > 0);
      }
    }
    CommitProducts();
  }

  __device__ __forceinline__ void StartSums(int tile, bool add) {
    const uint32_t values = AwaitSlot(KeysFill(tile) + 1);
    BeginProducts();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      MultiplyRows(sums, weights[step],
                   RowDescriptor(values + step * 16 * kSwizzledRowBytes, kColumnBlockBytes),
                   add || step > 0);
    }
    CommitProducts();
  }

  // Scores of a tile become weights; returns what the part's sums are to be multiplied with.
  __device__ __forceinline__ float2 Weigh(const UnitRows& rows, int tile) {
    const int first = TileEntry<kSeen>(params.attention, task.first_token, task.kv_head, tile);
    // Only the tiles around the entries that every row of the thread's sees have some to hide.
    const int all_first = max(rows.first_entry[0], rows.first_entry[1]);
    const int all_end = min(rows.exists[0] ? rows.end_entry[0] : INT_MAX,
                            rows.exists[1] ? rows.end_entry[1] : INT_MAX);
    if (first < all_first || first + kAttentionTile > all_end) HideScores(rows, first, scores);
    if (kSeen == Seen::kCompressed && params.scores != nullptr) StoreScores(params, rows, first, scores);
    return softmax.Weigh(scores, params.attention.scale_log2);
  }

  // The sums, and their softmax, are those of a part that ends with `last_tile`.
  __device__ __forceinline__ void EndPart(const UnitRows& rows, int last_tile) {
    const float scale_log2 = params.attention.scale_log2;
    if constexpr (Sizes::kWhole) {
      merged.Add(sums, softmax, scale_log2);
    } else {
      const int part = PartOfTile(last_tile);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const PartMerge merge = softmax.Finish(r, scale_log2);
        if (!SeesPart<kSeen>(rows, r, part)) continue;
        StorePartial(params, rows, r, part, /*first_channel=*/0, sums);
        StorePartialSoftmax(params, rows, r, part, merge);
      }
    }
  }

  // All tiles of the task.
  __device__ __forceinline__ void Run(const UnitRows& rows) {
    const SeenEntries& seen = task.seen;
    const bool idle = !__any_sync(kAllLanes, rows.exists[0] || rows.exists[1]);
    bool add = false;  // to what the part has summed so far
    int next_part = FirstTileOfPart(PartOfTile(seen.first_tile) + 1);
#pragma unroll
    for (int j = 0; j < Sizes::kSums; ++j) sums[j] = 0;
    PinSums(sums);
    PinSums(scores);
    StartScores(seen.first_tile);
    WaitForProducts<0>();
    PinSums(scores);
    Release(KeysFill(seen.first_tile));
    if (!idle) Weigh(rows, seen.first_tile);
    PackWeights(scores, weights);
    for (int tile = seen.first_tile; tile + 1 < seen.end_tile; ++tile) {
      StartScores(tile + 1);
      StartSums(tile, add);
      add = tile + 1 != next_part;
      if (!add) {
        next_part = FirstTileOfPart(PartOfTile(next_part) + 1);
        WaitForProducts<0>();
        PinSums(sums);
        EndPart(rows, tile);
        softmax = UnitSoftmax();
      }
      WaitForProducts<1>();
      PinSums(scores);
      Release(KeysFill(tile + 1));
      float2 factors = {1, 1};
      if (!idle) factors = Weigh(rows, tile + 1);
      PinSums(scores);
      WaitForProducts<0>();
      PinSums(sums);
      Release(KeysFill(tile) + 1);
      if (__any_sync(kAllLanes, add && (factors.x != 1 || factors.y != 1))) {
        ScaleSums(sums, factors);
      }
      PackWeights(scores, weights);
    }
    StartSums(seen.end_tile - 1, add);
    WaitForProducts<0>();
    PinSums(sums);
    EndPart(rows, seen.end_tile - 1);
  }
};

template <class Sizes, Seen kSeen>
__device__ __forceinline__ void ComputeRows(const UnitAttentionParams& params, const UnitTask& task,
                                            const UnitShared<Sizes>& shared) {
  const auto warpgroup = static_cast<int>(threadIdx.x) / kWarpgroupThreads - 1;
  const auto thread = static_cast<int>(threadIdx.x) % kWarpgroupThreads;
  std::byte* queries = shared.queries + warpgroup * Sizes::kQueryBytes;
  const UnitRows rows = FindRows<kSeen>(params, task, warpgroup);
  UnitComputer<Sizes, kSeen> computer = {params, task, shared, SharedAddress(queries)};
  if constexpr (Sizes::kQueriesInRegisters) {
    computer.held.Load(params, rows);
  } else {
    LoadUnitQueries<Sizes::kKeyBlocks>(params, task, warpgroup, queries, kUnitRows, thread,
                                       kWarpgroupThreads);
    FenceForProducts();
    SyncWarpgroup(1 + warpgroup);
  }
  computer.merged.shared =
      reinterpret_cast<float4*>(shared.merged + warpgroup * Sizes::kMergedBytes) + thread;
  if (task.seen.first_tile < task.seen.end_tile) computer.Run(rows);
  if constexpr (Sizes::kWhole) {
    computer.merged.Take(computer.sums);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (!rows.exists[r]) continue;
      StoreUnitRow<Sizes>(params, rows, r, computer.merged.merge[r], computer.sums);
    }
  }
}

// Grid: blocks of rows in x, KV heads and slices of their query heads in y, shares of the context in
// z.
template <class Sizes, Seen kSeen>
__global__ void __launch_bounds__(Sizes::kThreads, Sizes::kTwo ? 2 : 1)
    UnitAttentionKernel(const __grid_constant__ UnitAttentionParams params) {
  extern __shared__ __align__(1024) std::byte tile_shared[];
  const UnitShared<Sizes> shared(tile_shared);
  UnitTask task;
  WaitForEarlierKernels();
  LetNextKernelBegin();
  if (!FindTask<Sizes, kSeen>(params, task)) return;
  if (!Sizes::kWhole && !TakeShare(params, task)) return;
  if (!AnyOpen(params.attention, task)) {
    if (Sizes::kWhole && !params.attention.mix.accumulate) ClearRows(params, task);
    return;
  }
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < Sizes::kSlots; ++slot) {
      InitBarrier(shared.full + slot, 1);
      InitBarrier(shared.empty + slot, Sizes::kWarpgroups * kWarpgroupThreads / kWarpSize);
    }
    InitBarrier(shared.edge, 1);
    FenceBarriers();
  }
  __syncthreads();
  if (threadIdx.x < kWarpgroupThreads) {
    if constexpr (Sizes::kTwo) GiveUpRegisters<56>();
    if constexpr (Sizes::kWarpgroups == 2) GiveUpRegisters<40>();
    if (threadIdx.x < kWarpSize) UnitLoader<Sizes, kSeen>{params, task, shared}.Run();
  } else {
    if constexpr (Sizes::kTwo) TakeRegisters<200>();
    if constexpr (Sizes::kWarpgroups == 2) TakeRegisters<232>();
    ComputeRows<Sizes, kSeen>(params, task, shared);
  }
}

// Grid: tokens in x, four query heads each in y, a warp a head. Merges a head's parts in order. A
// lane has kFours times four channels.
inline constexpr int kMergeThreads = 4 * kWarpSize;

template <int kFours>
struct MergingSums {
  // Parts whose results are asked for at once.
  static constexpr int kAtOnce = kFours == 1 ? 8 : 4;

  float4 sums[kFours] = {};
  PartMerge merge = {-INFINITY, 0};

  __device__ __forceinline__ void Add(const float* partial, const float2* softmax, int first_part,
                                      int end_part, int head_dim) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    for (int first = first_part; first < end_part; first += kAtOnce) {
      float2 next_softmax[kAtOnce];
      float4 next[kAtOnce][kFours];
#pragma unroll
      for (int p = 0; p < kAtOnce; ++p) {
        const int part = min(first + p, end_part - 1);
        next_softmax[p] = softmax[part];
#pragma unroll
        for (int i = 0; i < kFours; ++i) {
          const int channel = (lane + i * kWarpSize) * 4;
          next[p][i] = *reinterpret_cast<const float4*>(
              partial + part * static_cast<int64_t>(head_dim) + (channel < head_dim ? channel : 0));
        }
      }
#pragma unroll
      for (int p = 0; p < kAtOnce; ++p) {
        if (first + p >= end_part) break;
        const float2 factors = AddPart(merge, {next_softmax[p].x, next_softmax[p].y});
#pragma unroll
        for (int i = 0; i < kFours; ++i) {
          sums[i].x = MergeSums(sums[i].x, next[p][i].x, factors);
          sums[i].y = MergeSums(sums[i].y, next[p][i].y, factors);
          sums[i].z = MergeSums(sums[i].z, next[p][i].z, factors);
          sums[i].w = MergeSums(sums[i].w, next[p][i].w, factors);
        }
      }
    }
  }
};

template <Seen kSeen, int kFours>
__global__ void __launch_bounds__(kMergeThreads)
    MergeUnitPartsKernel(const __grid_constant__ UnitAttentionParams params) {
  WaitForEarlierKernels();
  LetNextKernelBegin();
  const AttentionParams& attention = params.attention;
  const int64_t token = params.first_token + static_cast<int64_t>(blockIdx.x);
  const auto head = static_cast<int>(blockIdx.y * 4 + threadIdx.x / kWarpSize);
  if (head >= attention.heads) return;
  const auto lane = static_cast<int>(threadIdx.x % kWarpSize);
  const int kv_head = head / (attention.heads / attention.k.kv_heads);
  const int head_dim = attention.v.head_dim;
  const float factor = FactorOf(attention.mix, token, head);
  float* out = attention.out + token * attention.out_stride + head * head_dim;
  const bool accumulate = attention.mix.accumulate;
  if (factor == 0) {
    for (int c = lane; c < head_dim && !accumulate; c += kWarpSize) out[c] = 0;
    if (attention.softmax == nullptr) return;
  }
  const SeenEntries seen = FindSeen<kSeen>(attention, token, kv_head);
  const int64_t row = PartialPlace(params, token, head, 0);
  MergingSums<kFours> merging;
  merging.Add(attention.partial + row * head_dim, params.partial_softmax + row,
              PartOfTile(seen.first_tile), PartsOfTiles(seen.end_tile), head_dim);
  PartMerge merge = merging.merge;
  if (lane == 0 && attention.softmax != nullptr) {
    attention.softmax[token * attention.heads + head] = {merge.largest, merge.sum};
  }
  if (factor == 0) return;
  float rescale = 1;
  if (attention.sinks != nullptr) rescale = merge.Add(attention.sinks[head] * kLog2E, 1).x;
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    const int channel = (lane + i * kWarpSize) * 4;
    if (channel >= head_dim) continue;
    const float sums[4] = {merging.sums[i].x, merging.sums[i].y, merging.sums[i].z,
                           merging.sums[i].w};
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const float result = FinishUnit(sums[c], rescale, merge.sum, factor);
      out[channel + c] = __fadd_rn(accumulate ? out[channel + c] : 0.0F, result);
    }
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_ATTENTION_UNITS_KERNEL_CUH_
