// The kernels of kernels/cuda/attention_units.cuh.
#ifndef TROUPE_KERNELS_CUDA_ATTENTION_UNITS_KERNEL_CUH_
#define TROUPE_KERNELS_CUDA_ATTENTION_UNITS_KERNEL_CUH_

#include "kernels/cuda/attention_units_rows.cuh"

namespace troupe {

// A computing warpgroup: starts products, and waits for what they need.
template <class Sizes, Seen kSeen>
struct UnitComputer {
  const UnitAttentionParams& params;
  const UnitTask& task;
  const UnitShared<Sizes>& shared;
  uint32_t queries;  // address
  int started = 0;   // slots that products were started with
  int released = 0;
  float scores[32];
  float sums[Sizes::kSums];
  UnitSoftmax softmax;
  UnitMerged<Sizes> merged;

  // The next slot, once it is full.
  __device__ __forceinline__ uint32_t AwaitSlot() {
    const int slot = started % Sizes::kSlots;
    WaitForPhase(shared.full + slot, started / Sizes::kSlots & 1);
    ++started;
    return SharedAddress(shared.slots + slot * Sizes::kSlotBytes);
  }

  // The oldest slot that products were started with may be filled again. All of the warp's products
  // with it have ended.
  __device__ __forceinline__ void Release() {
    __syncwarp();
    if (threadIdx.x % kWarpSize == 0) Arrive(shared.empty + released % Sizes::kSlots);
    ++released;
  }

  __device__ __forceinline__ void StartScores() {
    const uint32_t keys = AwaitSlot();
    FenceProducts();
#pragma unroll
    for (int step = 0; step < Sizes::kKeyBlocks * 4; ++step) {
      const uint32_t at = step / 4 * kColumnBlockBytes + step % 4 * 32;
      MultiplyColumns(scores, ColumnDescriptor(queries + at), ColumnDescriptor(keys + at),
                      step > 0);
    }
    CommitProducts();
  }

  __device__ __forceinline__ void StartSums(const uint32_t (&weights)[4][4], bool add) {
    const uint32_t values = AwaitSlot();
    FenceProducts();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      MultiplyRows(sums, weights[step],
                   RowDescriptor(values + step * 16 * kSwizzledRowBytes, kColumnBlockBytes),
                   add || step > 0);
    }
    CommitProducts();
  }

  // All tiles of the task. At the end the sums, and their softmax, are those of the last part.
  __device__ __forceinline__ void Run(const UnitRows& rows) {
    const SeenEntries& seen = task.seen;
    const float scale_log2 = params.attention.scale_log2;
    const bool idle = !__any_sync(kAllLanes, rows.exists[0] || rows.exists[1]);
    // Entries that every row of the thread's sees; only the tiles around them have some to hide.
    const int all_first = max(rows.first_entry[0], rows.first_entry[1]);
    const int all_end = min(rows.exists[0] ? rows.end_entry[0] : INT_MAX,
                            rows.exists[1] ? rows.end_entry[1] : INT_MAX);
    bool add = false;  // to what the part has summed so far
    uint32_t weights[4][4] = {};
#pragma unroll
    for (int j = 0; j < Sizes::kSums; ++j) sums[j] = 0;
    PinSums(sums);
    PinSums(scores);
    const auto weigh = [&](int tile) {
      WaitForProducts<0>();
      PinSums(scores);
      PinSums(sums);
      if (tile > seen.first_tile) Release();  // values of the tile before
      Release();
      if constexpr (Sizes::kWhole) {
        if (tile > seen.first_tile && FirstTileOfPart(PartOfTile(tile)) == tile) {
          merged.Add(sums, softmax, scale_log2);
          softmax = UnitSoftmax();
          add = false;
        }
      }
      if (idle) return;
      const int first = TileEntry<kSeen>(params.attention, task.first_token, task.kv_head, tile);
      const bool all = first >= all_first && first + kAttentionTile <= all_end;
      if (!all) HideScores(rows, first, scores);
      const float2 factors = softmax.Weigh(scores, scale_log2);
      if (__any_sync(kAllLanes, add && (factors.x != 1 || factors.y != 1))) {
        ScaleSums(sums, factors);
      }
      PackWeights(scores, weights);
    };
    StartScores();
    for (int tile = seen.first_tile; tile + 1 < seen.end_tile; ++tile) {
      weigh(tile);
      StartSums(weights, add);
      add = true;
      StartScores();
    }
    weigh(seen.end_tile - 1);
    StartSums(weights, add);
    WaitForProducts<0>();
    PinSums(sums);
  }
};

template <class Sizes, Seen kSeen>
__device__ __forceinline__ void ComputeRows(const UnitAttentionParams& params, const UnitTask& task,
                                            const UnitShared<Sizes>& shared, int part) {
  const auto warpgroup = static_cast<int>(threadIdx.x) / kWarpgroupThreads - 1;
  const auto thread = static_cast<int>(threadIdx.x) % kWarpgroupThreads;
  std::byte* queries = shared.queries + warpgroup * Sizes::kQueryBytes;
  LoadUnitQueries<Sizes::kKeyBlocks>(params, task, warpgroup, queries, kUnitRows, thread,
                                     kWarpgroupThreads);
  const UnitRows rows = FindRows<kSeen>(params, task, warpgroup);
  FenceForProducts();
  SyncWarpgroup(1 + warpgroup);
  UnitComputer<Sizes, kSeen> computer = {params, task, shared, SharedAddress(queries)};
  computer.merged.shared =
      reinterpret_cast<float4*>(shared.merged + warpgroup * Sizes::kMergedBytes) + thread;
  const float scale_log2 = params.attention.scale_log2;
  if (task.seen.first_tile < task.seen.end_tile) {
    computer.Run(rows);
    if constexpr (Sizes::kWhole) {
      computer.merged.Add(computer.sums, computer.softmax, scale_log2);
    }
  }
  if constexpr (Sizes::kWhole) {
    computer.merged.Take(computer.sums);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (!rows.exists[r]) continue;
      StoreUnitRow<Sizes>(params, rows, r, computer.merged.merge[r], computer.sums);
    }
  } else {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const PartMerge merge = computer.softmax.Finish(r, scale_log2);
      if (!SeesPart<kSeen>(rows, r, part)) continue;
      StorePartial(params, rows, r, part, /*first_channel=*/0, computer.sums);
      StorePartialSoftmax(params, rows, r, part, merge);
    }
  }
}

// Grid: blocks of rows in x, KV heads and slices of their query heads in y, parts in z.
template <class Sizes, Seen kSeen>
__global__ void __launch_bounds__(Sizes::kThreads, Sizes::kTwo ? 2 : 1)
    UnitAttentionKernel(const __grid_constant__ UnitAttentionParams params) {
  extern __shared__ __align__(1024) std::byte tile_shared[];
  const UnitShared<Sizes> shared(tile_shared);
  UnitTask task;
  if (!FindTask<Sizes, kSeen>(params, task)) return;
  const auto part = static_cast<int>(blockIdx.z);
  if constexpr (!Sizes::kWhole) {
    task.seen.first_tile = max(task.seen.first_tile, FirstTileOfPart(part));
    task.seen.end_tile = min(task.seen.end_tile, FirstTileOfPart(part + 1));
    if (task.seen.first_tile >= task.seen.end_tile) return;
  }
  if (!AnyOpen(params.attention, task)) {
    if (Sizes::kWhole && !params.attention.mix.accumulate) ClearRows(params, task);
    return;
  }
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < Sizes::kSlots; ++slot) {
      InitBarrier(shared.full + slot, kWarpgroupThreads);
      InitBarrier(shared.empty + slot, Sizes::kWarpgroups * kWarpgroupThreads / kWarpSize);
    }
  }
  __syncthreads();
  if (threadIdx.x < kWarpgroupThreads) {
    if constexpr (Sizes::kTwo) GiveUpRegisters<56>();
    if constexpr (Sizes::kWarpgroups == 2) GiveUpRegisters<40>();
    UnitLoader<Sizes, kSeen>{params.attention, task, shared}.Run();
  } else {
    if constexpr (Sizes::kTwo) TakeRegisters<200>();
    if constexpr (Sizes::kWarpgroups == 2) TakeRegisters<232>();
    ComputeRows<Sizes, kSeen>(params, task, shared, part);
  }
}

// Grid: tokens in x, four query heads each in y, a warp a head. Merges a head's parts in order. A
// lane has at most kMostChannels channels.
inline constexpr int kMergeThreads = 4 * kWarpSize;

template <Seen kSeen, int kMostChannels>
__global__ void __launch_bounds__(kMergeThreads)
    MergeUnitPartsKernel(const __grid_constant__ UnitAttentionParams params) {
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
  const int end_part = PartsOfTiles(seen.end_tile);
  const int64_t row = PartialPlace(params, token, head, 0);
  const float* partial = attention.partial + row * head_dim;
  PartMerge merge = {-INFINITY, 0};
  float sums[kMostChannels] = {};
  for (int part = PartOfTile(seen.first_tile); part < end_part; ++part) {
    const float2 softmax = params.partial_softmax[row + part];
    const float2 factors = AddPart(merge, {softmax.x, softmax.y});
#pragma unroll
    for (int i = 0; i < kMostChannels; ++i) {
      const int channel = lane + i * kWarpSize;
      if (channel >= head_dim) continue;
      sums[i] =
          MergeSums(sums[i], partial[part * static_cast<int64_t>(head_dim) + channel], factors);
    }
  }
  if (lane == 0 && attention.softmax != nullptr) {
    attention.softmax[token * attention.heads + head] = {merge.largest, merge.sum};
  }
  if (factor == 0) return;
  float rescale = 1;
  if (attention.sinks != nullptr) rescale = merge.Add(attention.sinks[head] * kLog2E, 1).x;
#pragma unroll
  for (int i = 0; i < kMostChannels; ++i) {
    const int channel = lane + i * kWarpSize;
    if (channel >= head_dim) continue;
    const float result = FinishUnit(sums[i], rescale, merge.sum, factor);
    out[channel] = __fadd_rn(accumulate ? out[channel] : 0.0F, result);
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_ATTENTION_UNITS_KERNEL_CUH_
