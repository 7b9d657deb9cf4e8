// The kernels of kernels/cuda/attention_units.cuh.
#ifndef TROUPE_KERNELS_CUDA_ATTENTION_UNITS_KERNEL_CUH_
#define TROUPE_KERNELS_CUDA_ATTENTION_UNITS_KERNEL_CUH_

#include "kernels/cuda/attention_codes.cuh"
#include "kernels/cuda/attention_pieces.cuh"
#include "kernels/cuda/attention_units_rows.cuh"

namespace troupe {

// A computing warpgroup: starts products, and waits for what they need. While the sums of a tile
// are being formed, the next one's scores become weights.
template <class Sizes, Seen kSeen>
struct UnitComputer {
  const UnitAttentionParams& params;
  const UnitTask& task;
  const UnitShared<Sizes>& shared;
  uint32_t queries;  // see OperandPlace
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
    return OperandPlace(SharedAddress(shared.slots + slot * Sizes::kSlotBytes));
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
      const uint32_t at = OperandStep(step / 4 * kColumnBlockBytes + step % 4 * 32);
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
                   RowDescriptor(values + OperandStep(step * 16 * kSwizzledRowBytes)),
                   add || step > 0);
    }
    CommitProducts();
  }

  // Two warpgroups take turns to start products, so that one forms weights while the other's run.
  // Barriers: 3 and 4, a warpgroup's own.
  __device__ __forceinline__ static int Warpgroup() {
    return static_cast<int>(threadIdx.x) / kWarpgroupThreads - 1;
  }
  __device__ __forceinline__ static void AwaitTurn() {
    if constexpr (Sizes::kWarpgroups == 2) SyncThreads<2 * kWarpgroupThreads>(3 + Warpgroup());
  }
  __device__ __forceinline__ static void PassTurn() {
    if constexpr (Sizes::kWarpgroups == 2) ArriveThreads<2 * kWarpgroupThreads>(4 - Warpgroup());
  }

  // Scores of a tile become weights; returns what the part's sums are to be multiplied with.
  __device__ __forceinline__ float2 Weigh(const UnitRows& rows, int tile) {
    const int first = TileEntry<kSeen>(params.attention, task.first_token, task.kv_head, tile);
    // Only the tiles around the entries that every row of the thread's sees have some to hide.
    const int all_first = max(rows.first_entry[0], rows.first_entry[1]);
    const int all_end = min(rows.exists[0] ? rows.end_entry[0] : INT_MAX,
                            rows.exists[1] ? rows.end_entry[1] : INT_MAX);
    if (first < all_first || first + kAttentionTile > all_end) HideScores(rows, first, scores);
    if (kSeen == Seen::kCompressed && params.scores != nullptr) {
      StoreScores(params, rows, first, scores);
    }
    return softmax.Weigh(scores, params.attention.scale_log2);
  }

  // The sums, and their softmax, are those of a part that ends with `last_tile`.
  __device__ __forceinline__ void EndPart(const UnitRows& rows, int last_tile) {
    if constexpr (Sizes::kWhole) {
      merged.Add(sums, softmax);
    } else {
      const int part = PartOfTile(last_tile);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const PartMerge merge = softmax.Finish(r);
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
    if (Warpgroup() == 1) PassTurn();
    StartScores(seen.first_tile);
    WaitForProducts<0>();
    PinSums(scores);
    Release(KeysFill(seen.first_tile));
    if (!idle) Weigh(rows, seen.first_tile);
    PackWeights(scores, weights);
    for (int tile = seen.first_tile; tile + 1 < seen.end_tile; ++tile) {
      AwaitTurn();
      StartScores(tile + 1);
      StartSums(tile, add);
      PassTurn();
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
    if (Warpgroup() == 0) AwaitTurn();
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
  UnitComputer<Sizes, kSeen> computer = {params, task, shared,
                                         OperandPlace(SharedAddress(queries))};
  if constexpr (Sizes::kQueriesInRegisters) {
    computer.held.Load(params, rows);
  } else {
    LoadUnitQueries<Sizes::kKeyBlocks>(params, task, warpgroup, queries, kUnitRows, thread,
                                       kWarpgroupThreads);
    FenceForProducts();
    SyncThreads<kWarpgroupThreads>(1 + warpgroup);
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

// Grid: blocks of rows in x, KV heads and slices of their query heads in y, shares of the context
// in z.
template <class Sizes, Seen kSeen>
__global__ void __launch_bounds__(Sizes::kThreads, Sizes::kTwo ? 2 : 1)
    UnitAttentionKernel(const __grid_constant__ UnitAttentionParams params) {
  extern __shared__ __align__(1024) std::byte tile_shared[];
  const UnitShared<Sizes> shared(tile_shared);
  if (threadIdx.x == 0) {
    if constexpr (!Sizes::kCoded) {
      PrefetchMap(&params.keys);
      PrefetchMap(&params.values);
    }
    constexpr bool kWarpsLoad = kLoadsPieces<Sizes, kSeen> || Sizes::kCoded;
    for (int slot = 0; slot < Sizes::kSlots; ++slot) {
      InitBarrier(shared.full + slot, kWarpsLoad ? PieceLoader<Sizes>::kWarps : 1);
      InitBarrier(shared.empty + slot, Sizes::kWarpgroups * kWarpgroupThreads / kWarpSize);
    }
    InitBarrier(shared.edge, 1);
    FenceBarriers();
  }
  LetNextKernelBegin();
  WaitForEarlierKernels();
  UnitTask task;
  if (!FindTask<Sizes, kSeen>(params, task)) return;
  if (!Sizes::kWhole && !TakeShare(params, task)) return;
  if (!AnyOpen(params.attention, task)) {
    if (Sizes::kWhole && !params.attention.mix.accumulate) ClearRows(params, task);
    return;
  }
  __syncthreads();
  if (threadIdx.x < kWarpgroupThreads) {
    if constexpr (Sizes::kTwo) GiveUpRegisters<56>();
    if constexpr (Sizes::kWarpgroups == 2) GiveUpRegisters<Sizes::kCoded ? 56 : 24>();
    if constexpr (Sizes::kCoded) {
      CodedLoader<Sizes>{params, task, shared}.Run();
    } else if constexpr (kLoadsPieces<Sizes, kSeen>) {
      PieceLoader<Sizes>{params, task, shared}.Run();
    } else {
      if (threadIdx.x < kWarpSize) UnitLoader<Sizes, kSeen>{params, task, shared}.Run();
    }
  } else {
    if constexpr (Sizes::kTwo) TakeRegisters<200>();
    if constexpr (Sizes::kWarpgroups == 2) TakeRegisters<Sizes::kCoded ? 224 : 240>();
    ComputeRows<Sizes, kSeen>(params, task, shared);
  }
}

inline constexpr int kMergeThreads = 4 * kWarpSize;
inline constexpr int kMergeChannels = 4 * kWarpSize;  // of a warp

// A lane's four channels of a head's parts, merged in order.
struct MergingSums {
  static constexpr int kAtOnce = 8;  // parts whose results are asked for at once

  float4 sums = {};
  PartMerge merge = {-INFINITY, 0};

  // `partial`: the first part's.
  __device__ __forceinline__ void Add(const float* partial, const float2* softmax, int first_part,
                                      int end_part, int head_dim) {
    for (int first = first_part; first < end_part; first += kAtOnce) {
      float2 next_softmax[kAtOnce];
      float4 next[kAtOnce];
#pragma unroll
      for (int p = 0; p < kAtOnce; ++p) {
        const int part = min(first + p, end_part - 1);
        next_softmax[p] = softmax[part];
        next[p] = *reinterpret_cast<const float4*>(partial + part * static_cast<int64_t>(head_dim));
      }
#pragma unroll
      for (int p = 0; p < kAtOnce; ++p) {
        if (first + p >= end_part) break;
        const float2 factors = AddPart(merge, {next_softmax[p].x, next_softmax[p].y});
        sums.x = MergeSums(sums.x, next[p].x, factors);
        sums.y = MergeSums(sums.y, next[p].y, factors);
        sums.z = MergeSums(sums.z, next[p].z, factors);
        sums.w = MergeSums(sums.w, next[p].w, factors);
      }
    }
  }

  __device__ __forceinline__ void AddGroup(const MergingSums& group) {
    const float2 factors = AddPart(merge, group.merge);
    sums.x = MergeSums(sums.x, group.sums.x, factors);
    sums.y = MergeSums(sums.y, group.sums.y, factors);
    sums.z = MergeSums(sums.z, group.sums.z, factors);
    sums.w = MergeSums(sums.w, group.sums.w, factors);
  }

  // All that was seen.
  __device__ __forceinline__ void AddAll(const UnitAttentionParams& params, const SeenEntries& seen,
                                         const float* partial, const float2* softmax,
                                         int head_dim) {
    const int first_part = PartOfTile(seen.first_tile);
    const int end_part = PartsOfTiles(seen.end_tile);
    if (!params.in_groups) {
      Add(partial, softmax, first_part, end_part, head_dim);
      return;
    }
    const int first_group = seen.first_tile / kGroupTiles;
    const int end_group = GroupsOfTiles(seen.end_tile);
    if (params.groups_merged) {
      Add(partial, softmax, first_group, end_group, head_dim);
      return;
    }
    for (int group = first_group; group < end_group; ++group) {
      MergingSums one;
      one.Add(partial, softmax, max(first_part, PartOfTile(group * kGroupTiles)),
              min(end_part, PartOfTile((group + 1) * kGroupTiles)), head_dim);
      AddGroup(one);
    }
  }
};

// Grid: tokens in x, four query heads each in y, a warp a head, and kMergeChannels of their
// channels in z.
template <Seen kSeen>
__global__ void __launch_bounds__(kMergeThreads)
    MergeUnitPartsKernel(const __grid_constant__ UnitAttentionParams params) {
  LetNextKernelBegin();
  WaitForEarlierKernels();
  const AttentionParams& attention = params.attention;
  const int64_t token = params.first_token + static_cast<int64_t>(blockIdx.x);
  const auto head = static_cast<int>(blockIdx.y * 4 + threadIdx.x / kWarpSize);
  if (head >= attention.heads) return;
  const auto lane = static_cast<int>(threadIdx.x % kWarpSize);
  const auto channel = static_cast<int>(blockIdx.z) * kMergeChannels + lane * 4;
  const int kv_head = head / (attention.heads / attention.k.kv_heads);
  const int head_dim = attention.v.head_dim;
  const bool inside = channel < head_dim;
  const float factor = FactorOf(attention.mix, token, head);
  float* out = attention.out + token * attention.out_stride + head * head_dim + channel;
  const bool accumulate = attention.mix.accumulate;
  if (factor == 0) {
    for (int c = 0; c < 4 && inside && !accumulate; ++c) out[c] = 0;
    if (attention.softmax == nullptr) return;
  }
  const SeenEntries seen = FindSeen<kSeen>(attention, token, kv_head);
  const int64_t row = PartialPlace(params, token, head, 0);
  MergingSums merging;
  merging.AddAll(params, seen, attention.partial + row * head_dim + (inside ? channel : 0),
                 params.partial_softmax + row, head_dim);
  PartMerge merge = merging.merge;
  if (channel == 0 && attention.softmax != nullptr) {
    attention.softmax[token * attention.heads + head] = {merge.largest, merge.sum};
  }
  if (factor == 0 || !inside) return;
  float rescale = 1;
  if (attention.sinks != nullptr) rescale = merge.Add(attention.sinks[head] * kLog2E, 1).x;
  const float sums[4] = {merging.sums.x, merging.sums.y, merging.sums.z, merging.sums.w};
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    const float result = FinishUnit(sums[c], rescale, merge.sum, factor);
    out[c] = __fadd_rn(accumulate ? out[c] : 0.0F, result);
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_ATTENTION_UNITS_KERNEL_CUH_
