// Attention over bf16 latents on the matrix units: keys of up to 576 channels whose first 512 are
// their values (kernels/mla_attention/mla_attention.h, the absorbed form).
//
// As kernels/cuda/attention_units.cuh, with what such sizes ask for. Two warpgroups have the same
// rows: each forms the scores' sums over some of the key's column blocks, gives them to the other,
// and then forms the sums of half of the value's channels, which lie in the same blocks. The ring's
// slots are column blocks of 64 entries, for tiles are too large to have several; those that hold
// values stay until they were summed. Sums fill the registers, so that a part's result goes to
// memory; to shared memory where rows are few and a block has whole groups of parts.
#ifndef TROUPE_KERNELS_CUDA_ATTENTION_LATENT_CUH_
#define TROUPE_KERNELS_CUDA_ATTENTION_LATENT_CUH_

#include "kernels/cuda/attention_units_rows.cuh"

namespace troupe {

struct LatentSizes {
  static constexpr int kKeyBlocks = 9;
  static constexpr int kValueBlocks = 4;  // of each warpgroup
  static constexpr int kWarpgroups = 2;
  static constexpr int kTokenWarpgroups = 1;
  static constexpr int kThreads = (kWarpgroups + 1) * kWarpgroupThreads;
  static constexpr int kBarrierBytes = 1024;
  static constexpr int kSharedBytes = 231424;
  static constexpr int kExchangeBytes = 8192;  // where warps of the same rows exchange scores
  static constexpr int kMostSlots = 32;
  static constexpr int kMergedBytes = kMostMergedLatentRows * kMostLatentValueDim * 4;
};

// The ring, and a place in it.
struct LatentRing {
  int slots;
  std::byte* blocks;
  uint64_t* full;   // [slots]
  uint64_t* empty;  // [slots]
  uint64_t* edge;
  float4* exchange;
  float4* merged;  // a group's sums; null: parts go to memory
};

struct LatentPlace {
  int slot = 0;
  uint32_t parity = 0;

  __device__ __forceinline__ void Next(int count, int slots) {
    slot += count;
    if (slot < slots) return;
    slot -= slots;
    parity ^= 1;
  }
};

// `query_rows`: as many of the 64 as there are, in whole 16: products that read the rest find some
// of the ring there, in rows that nobody looks at.
__device__ __forceinline__ LatentRing MakeLatentRing(std::byte* shared, int query_rows,
                                                     bool merges) {
  const int query_bytes = LatentSizes::kKeyBlocks * query_rows * kSwizzledRowBytes;
  const int merged_bytes = merges ? LatentSizes::kMergedBytes : 0;
  LatentRing ring;
  ring.slots =
      min(LatentSizes::kMostSlots, (LatentSizes::kSharedBytes - LatentSizes::kBarrierBytes -
                                    LatentSizes::kExchangeBytes - merged_bytes - query_bytes) /
                                       kColumnBlockBytes);
  ring.blocks = shared + query_bytes;
  ring.full =
      reinterpret_cast<uint64_t*>(shared + LatentSizes::kSharedBytes - LatentSizes::kBarrierBytes);
  ring.empty = ring.full + LatentSizes::kMostSlots;
  ring.edge = ring.empty + LatentSizes::kMostSlots;
  ring.exchange =
      reinterpret_cast<float4*>(shared + LatentSizes::kSharedBytes - LatentSizes::kBarrierBytes -
                                LatentSizes::kExchangeBytes);
  ring.merged = merges ? ring.exchange - merged_bytes / sizeof(float4) : nullptr;
  return ring;
}

// The warp that loads, a column block at a time.
struct LatentLoader {
  const UnitAttentionParams& params;
  const UnitTask& task;
  const LatentRing& ring;
  LatentPlace filling = {0, 1};  // a ring's first round need not wait
  bool leads = threadIdx.x % kWarpSize == 0;

  __device__ __forceinline__ void Copy(int page, int block, uint64_t* barrier) {
    if (!leads) return;
    CopyTensor3(ring.blocks + filling.slot * kColumnBlockBytes, &params.keys, block * kBlockColumns,
                0, page, barrier);
  }

  __device__ void Load(int page) {
    for (int block = 0; block < LatentSizes::kKeyBlocks; ++block) {
      WaitFor(ring.empty + filling.slot, filling.parity);
      uint64_t* full = ring.full + filling.slot;
      if (leads) ArriveExpecting(full, kColumnBlockBytes);
      Copy(page, block, full);
      filling.Next(1, ring.slots);
    }
  }

  // The last tile: see EdgeTile.
  __device__ void LoadEdge(int page, const EdgeTile& edge) {
    const int first = filling.slot;
    if (leads) ArriveExpecting(ring.edge, LatentSizes::kKeyBlocks * kColumnBlockBytes);
    for (int block = 0; block < LatentSizes::kKeyBlocks; ++block) {
      WaitFor(ring.empty + filling.slot, filling.parity);
      Copy(page, block, ring.edge);
      filling.Next(1, ring.slots);
    }
    WaitFor(ring.edge, 0);
    for (int block = 0; block < LatentSizes::kKeyBlocks; ++block) {
      const int slot = first + block < ring.slots ? first + block : first + block - ring.slots;
      edge.Clear(ring.blocks + slot * kColumnBlockBytes, 1);
      if (leads) Arrive(ring.full + slot);
    }
  }

  __device__ void Run() {
    const BlockTables& tables = params.attention.tables;
    const uint32_t* pages = tables.pages + task.slot * tables.stride;
    uint32_t page = pages[task.seen.first_tile];
    for (int tile = task.seen.first_tile; tile < task.seen.end_tile; ++tile) {
      const auto this_page = static_cast<int>(page);
      page = pages[min(tile + 1, task.seen.end_tile - 1)];
      const EdgeTile edge(task.seen, tile * kAttentionTile);
      if (edge.whole()) {
        Load(this_page);
      } else {
        LoadEdge(this_page, edge);
      }
    }
  }
};

struct LatentComputer {
  static constexpr int kKeyBlocks = LatentSizes::kKeyBlocks;
  static constexpr int kValueBlocks = LatentSizes::kValueBlocks;

  const UnitAttentionParams& params;
  const UnitTask& task;
  const LatentRing& ring;
  uint32_t queries;  // see OperandPlace
  uint32_t query_block_step;
  int first_value_block;
  bool few_rows;        // all in the first warp
  LatentPlace scoring;  // the next block of keys
  int keys_slot = 0;    // the first block of the tile whose scores were formed last
  float scores[32];
  float sums[kValueBlocks][32];
  UnitSoftmax softmax;
  // Of the group so far; its sums, four at a time and each thread's own, are in shared memory.
  PartMerge merge[2] = {{-INFINITY, 0}, {-INFINITY, 0}};
  bool merged_any = false;

  __device__ __forceinline__ int SlotAfter(int slot, int count) const {
    return slot + count < ring.slots ? slot + count : slot + count - ring.slots;
  }

  // Every warp lets go of every block once, and need not have read it.
  __device__ __forceinline__ void Release(int slot, int count) {
    __syncwarp();
    const auto lane = static_cast<int>(threadIdx.x % kWarpSize);
    if (lane < count) Arrive(ring.empty + SlotAfter(slot, lane));
  }

  // Of column block `block` of the tile that is next to be scored.
  __device__ __forceinline__ uint32_t AwaitBlock(int block) const {
    const bool wraps = scoring.slot + block >= ring.slots;
    const int slot = scoring.slot + block - (wraps ? ring.slots : 0);
    WaitFor(ring.full + slot, scoring.parity ^ (wraps ? 1 : 0));
    return OperandPlace(SharedAddress(ring.blocks) + slot * kColumnBlockBytes);
  }

  // The column blocks that this warpgroup sums over: those of its values, and half of what is
  // behind all of them.
  __device__ __forceinline__ void StartScores() {
    keys_slot = scoring.slot;
    // All before the first product: what stands between products would part them.
    uint32_t keys[kValueBlocks + 1];
#pragma unroll
    for (int i = 0; i < kValueBlocks; ++i) keys[i] = AwaitBlock(first_value_block + i);
    keys[kValueBlocks] = AwaitBlock(kKeyBlocks - 1);
    const uint32_t half = first_value_block > 0 ? OperandStep(64) : 0;
    const uint32_t first_query = SameInWarp(queries + first_value_block * query_block_step);
    const uint32_t last_query = SameInWarp(queries + (kKeyBlocks - 1) * query_block_step + half);
    keys[kValueBlocks] = SameInWarp(keys[kValueBlocks] + half);
    BeginProducts();
#pragma unroll
    for (int i = 0; i < kValueBlocks; ++i) {
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        MultiplyColumns(
            scores, ColumnDescriptor(first_query + i * query_block_step + OperandStep(step * 32)),
            ColumnDescriptor(keys[i] + OperandStep(step * 32)), i + step > 0);
      }
    }
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      MultiplyColumns(scores, ColumnDescriptor(last_query + OperandStep(step * 32)),
                      ColumnDescriptor(keys[kValueBlocks] + OperandStep(step * 32)), true);
    }
    CommitProducts();
    scoring.Next(kKeyBlocks, ring.slots);
  }

  // Adds the other warpgroup's scores to those here, kFours times four at once. Each pair of warps
  // has a barrier.
  template <int kFours>
  __device__ __forceinline__ void AddScores() {
    const auto thread = static_cast<int>(threadIdx.x) - kWarpgroupThreads;
    const int warpgroup = thread / kWarpgroupThreads;
    const int warp = thread % kWarpgroupThreads / kWarpSize;
    float4* const pair = ring.exchange + warp * 2 * kFours * kWarpSize + thread % kWarpSize;
    float4* const mine = pair + warpgroup * kFours * kWarpSize;
    const float4* const other = pair + (1 - warpgroup) * kFours * kWarpSize;
#pragma unroll
    for (int first = 0; first < 32; first += 4 * kFours) {
      SyncThreads<2 * kWarpSize>(2 + warp);  // the other has read what was here
#pragma unroll
      for (int i = 0; i < kFours; ++i) {
        const float* from = scores + first + 4 * i;
        mine[i * kWarpSize] = {from[0], from[1], from[2], from[3]};
      }
      SyncThreads<2 * kWarpSize>(2 + warp);
#pragma unroll
      for (int i = 0; i < kFours; ++i) {
        const float4 four = other[i * kWarpSize];
        float* to = scores + first + 4 * i;
        to[0] = __fadd_rn(to[0], four.x);
        to[1] = __fadd_rn(to[1], four.y);
        to[2] = __fadd_rn(to[2], four.z);
        to[3] = __fadd_rn(to[3], four.w);
      }
    }
  }

  __device__ __forceinline__ void StartSums(const uint32_t (&weights)[4][4], bool add) {
    uint32_t values[kValueBlocks];
#pragma unroll
    for (int block = 0; block < kValueBlocks; ++block) {
      values[block] =
          OperandPlace(SharedAddress(ring.blocks) +
                       SlotAfter(keys_slot, first_value_block + block) * kColumnBlockBytes);
    }
    BeginProducts();
#pragma unroll
    for (int block = 0; block < kValueBlocks; ++block) {
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        MultiplyRows(sums[block], weights[step],
                     RowDescriptor(values[block] + OperandStep(step * 16 * kSwizzledRowBytes)),
                     add || step > 0);
      }
    }
    CommitProducts();
  }

  __device__ __forceinline__ void PinAll() {
#pragma unroll
    for (int block = 0; block < kValueBlocks; ++block) PinSums(sums[block]);
  }

  // The thread's place for sums 4 i of value block 0 and on, where all rows are in the first warp.
  __device__ __forceinline__ float4* MergedPlace() const {
    constexpr int kFours = kValueBlocks * 8;
    return ring.merged + first_value_block / kValueBlocks * kFours * kWarpSize +
           threadIdx.x % kWarpSize;
  }

  __device__ __forceinline__ void MergePart(const UnitRows& rows, int part) {
    float2 factors[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const PartMerge next = softmax.Finish(r);
      factors[r] = {1, 0};
      if (SeesPart<Seen::kWindow>(rows, r, part)) factors[r] = AddPart(merge[r], next);
    }
    float4* const place = MergedPlace();
#pragma unroll
    for (int i = 0; i < kValueBlocks * 8; ++i) {
      const float* from = sums[i / 8] + i % 8 * 4;
      const float4 before = merged_any ? place[i * kWarpSize] : float4{0, 0, 0, 0};
      place[i * kWarpSize] = {
          MergeSums(before.x, from[0], factors[0]), MergeSums(before.y, from[1], factors[0]),
          MergeSums(before.z, from[2], factors[1]), MergeSums(before.w, from[3], factors[1])};
    }
    merged_any = true;
  }

  // The task's tiles are those of a group.
  __device__ __forceinline__ void EndGroup(const UnitRows& rows) {
    const int group = task.seen.first_tile / kGroupTiles;
    const float4* const place = MergedPlace();
#pragma unroll
    for (int i = 0; i < kValueBlocks * 8; ++i) {
      const float4 four = place[i * kWarpSize];
      float* to = sums[i / 8] + i % 8 * 4;
      to[0] = four.x;
      to[1] = four.y;
      to[2] = four.z;
      to[3] = four.w;
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (rows.exists[r] && rows.end_entry[r] > group * kGroupTiles * kAttentionTile) {
        StoreSums(rows, r, group, merge[r]);
      }
    }
  }

  __device__ __forceinline__ void StoreSums(const UnitRows& rows, int r, int part,
                                            const PartMerge& softmax_of_part) {
#pragma unroll
    for (int block = 0; block < kValueBlocks; ++block) {
      StorePartial(params, rows, r, part, (first_value_block + block) * kBlockColumns, sums[block]);
    }
    if (first_value_block == 0) StorePartialSoftmax(params, rows, r, part, softmax_of_part);
  }

  // The sums, and their softmax, are those of a part that ends with `last_tile`.
  __device__ __forceinline__ void EndPart(const UnitRows& rows, int last_tile) {
    const int part = PartOfTile(last_tile);
    if (ring.merged != nullptr) {
      if (__any_sync(kAllLanes, rows.exists[0] || rows.exists[1])) MergePart(rows, part);
      return;
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const PartMerge whole = softmax.Finish(r);
      if (SeesPart<Seen::kWindow>(rows, r, part)) StoreSums(rows, r, part, whole);
    }
  }

  __device__ __forceinline__ void Run(const UnitRows& rows) {
    const SeenEntries& seen = task.seen;
    int next_part = FirstTileOfPart(PartOfTile(seen.first_tile) + 1);
    const bool idle = !__any_sync(kAllLanes, rows.exists[0] || rows.exists[1]);
    const int all_end = min(rows.exists[0] ? rows.end_entry[0] : INT_MAX,
                            rows.exists[1] ? rows.end_entry[1] : INT_MAX);
    bool add = false;
    uint32_t weights[4][4] = {};
#pragma unroll
    for (int block = 0; block < kValueBlocks; ++block) {
#pragma unroll
      for (int j = 0; j < 32; ++j) sums[block][j] = 0;
    }
    PinAll();
    PinSums(scores);
    const auto weigh = [&](int tile) {
      WaitForProducts<0>();
      PinSums(scores);
      PinAll();
      if (idle) return;
      if (few_rows) {
        AddScores<8>();
      } else {
        AddScores<2>();
      }
      const int first = tile * kAttentionTile;
      if (first + kAttentionTile > all_end) HideScores(rows, first, scores);
      const float2 factors = softmax.Weigh(scores, params.attention.scale_log2);
      if (__any_sync(kAllLanes, add && (factors.x != 1 || factors.y != 1))) {
#pragma unroll
        for (int block = 0; block < kValueBlocks; ++block) ScaleSums(sums[block], factors);
      }
      PackWeights(scores, weights);
    };
    StartScores();
    for (int tile = seen.first_tile; tile + 1 < seen.end_tile; ++tile) {
      weigh(tile);
      const int slot = keys_slot;
      StartSums(weights, add);
      add = true;
      StartScores();
      WaitForProducts<1>();  // the tile's sums; the next one's scores are still being formed
      Release(slot, kKeyBlocks);
      if (tile + 1 == next_part) {
        next_part = FirstTileOfPart(PartOfTile(next_part) + 1);
        PinAll();
        EndPart(rows, tile);
        softmax = UnitSoftmax();
        add = false;
      }
    }
    weigh(seen.end_tile - 1);
    StartSums(weights, add);
    WaitForProducts<0>();
    PinAll();
    EndPart(rows, seen.end_tile - 1);
    if (ring.merged != nullptr && !idle) EndGroup(rows);
  }
};

__device__ __forceinline__ void ComputeLatents(const UnitAttentionParams& params,
                                               const UnitTask& task, const LatentRing& ring,
                                               std::byte* queries, int query_rows) {
  const int thread = static_cast<int>(threadIdx.x) - kWarpgroupThreads;
  LoadUnitQueries<LatentSizes::kKeyBlocks>(params, task, /*warpgroup=*/0, queries, query_rows,
                                           thread, LatentSizes::kWarpgroups * kWarpgroupThreads);
  const UnitRows rows = FindRows<Seen::kWindow>(params, task, /*warpgroup=*/0);
  FenceForProducts();
  SyncThreads<LatentSizes::kWarpgroups * kWarpgroupThreads>(1);
  const int warpgroup = thread / kWarpgroupThreads;
  LatentComputer computer = {params,
                             task,
                             ring,
                             OperandPlace(SharedAddress(queries)),
                             OperandStep(query_rows * kSwizzledRowBytes),
                             warpgroup * LatentSizes::kValueBlocks,
                             query_rows <= 16};
  computer.Run(rows);
}

// Grid: blocks of rows in x, slices of the query heads in y, shares of the context in z.
__global__ void __launch_bounds__(LatentSizes::kThreads, 1)
    LatentAttentionKernel(const __grid_constant__ UnitAttentionParams params) {
  extern __shared__ __align__(1024) std::byte latent_shared[];
  if (threadIdx.x == 0) PrefetchMap(&params.keys);
  UnitTask task;
  WaitForEarlierKernels();
  LetNextKernelBegin();
  if (!FindTask<LatentSizes, Seen::kWindow>(params, task)) return;
  if (!TakeShare(params, task)) return;
  const int query_rows = min(kUnitRows, (params.tokens_a_warpgroup * task.heads + 15) / 16 * 16);
  const LatentRing ring = MakeLatentRing(latent_shared, query_rows, params.groups_merged);
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < ring.slots; ++slot) {
      InitBarrier(ring.full + slot, 1);
      InitBarrier(ring.empty + slot, LatentSizes::kWarpgroups * kWarpgroupThreads / kWarpSize);
    }
    InitBarrier(ring.edge, 1);
    FenceBarriers();
  }
  __syncthreads();
  if (threadIdx.x < kWarpgroupThreads) {
    GiveUpRegisters<24>();
    if (threadIdx.x < kWarpSize) LatentLoader{params, task, ring}.Run();
  } else {
    TakeRegisters<240>();
    ComputeLatents(params, task, ring, latent_shared, query_rows);
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_ATTENTION_LATENT_CUH_
