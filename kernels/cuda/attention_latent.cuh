// Attention over bf16 latents on the matrix units: keys of up to 576 channels whose first 512 are
// their values (kernels/mla_attention/mla_attention.h, the absorbed form).
//
// As kernels/cuda/attention_units.cuh, with what such sizes ask for. Two warpgroups have the same
// rows: each forms the scores, and then the sums of half of the channels. The ring's slots are
// column blocks of 64 entries, for tiles are too large to have several; those that hold values stay
// until they were summed. Every part's result goes to memory, since sums fill the registers.
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
  static constexpr int kMostSlots = 32;
};

// The ring, and a place in it.
struct LatentRing {
  int slots;
  std::byte* blocks;
  uint64_t* full;   // [slots]
  uint64_t* empty;  // [slots]
  uint64_t* edge;
};

struct LatentPlace {
  int slot = 0;
  uint32_t parity = 0;

  __device__ __forceinline__ void Next(int slots) {
    if (++slot < slots) return;
    slot = 0;
    parity ^= 1;
  }
};

// `query_rows`: as many of the 64 as there are, in whole 16: products that read the rest find some
// of the ring there, in rows that nobody looks at.
__device__ __forceinline__ LatentRing MakeLatentRing(std::byte* shared, int query_rows) {
  const int query_bytes = LatentSizes::kKeyBlocks * query_rows * kSwizzledRowBytes;
  LatentRing ring;
  ring.slots = min(
      LatentSizes::kMostSlots,
      (LatentSizes::kSharedBytes - LatentSizes::kBarrierBytes - query_bytes) / kColumnBlockBytes);
  ring.blocks = shared + query_bytes;
  ring.full =
      reinterpret_cast<uint64_t*>(shared + LatentSizes::kSharedBytes - LatentSizes::kBarrierBytes);
  ring.empty = ring.full + LatentSizes::kMostSlots;
  ring.edge = ring.empty + LatentSizes::kMostSlots;
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
    CopyTensor3(ring.blocks + filling.slot * kColumnBlockBytes, &params.keys,
                block * kBlockColumns, 0, page, barrier);
  }

  __device__ void Load(int page) {
    for (int block = 0; block < LatentSizes::kKeyBlocks; ++block) {
      WaitFor(ring.empty + filling.slot, filling.parity);
      uint64_t* full = ring.full + filling.slot;
      if (leads) ArriveExpecting(full, kColumnBlockBytes);
      Copy(page, block, full);
      filling.Next(ring.slots);
    }
  }

  // The last tile: see EdgeTile.
  __device__ void LoadEdge(int page, const EdgeTile& edge) {
    const int first = filling.slot;
    if (leads) ArriveExpecting(ring.edge, LatentSizes::kKeyBlocks * kColumnBlockBytes);
    for (int block = 0; block < LatentSizes::kKeyBlocks; ++block) {
      WaitFor(ring.empty + filling.slot, filling.parity);
      Copy(page, block, ring.edge);
      filling.Next(ring.slots);
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
  uint32_t queries;  // address
  uint32_t query_block_bytes;
  int first_value_block;
  LatentPlace scoring;  // the next block of keys
  int keys_slot = 0;    // the first block of the tile whose scores were formed last
  float scores[32];
  float sums[kValueBlocks][32];
  UnitSoftmax softmax;

  __device__ __forceinline__ int SlotAfter(int slot, int count) const {
    return slot + count < ring.slots ? slot + count : slot + count - ring.slots;
  }

  // Every warp lets go of every block once, and need not have read it.
  __device__ __forceinline__ void Release(int slot, int count) {
    __syncwarp();
    const auto lane = static_cast<int>(threadIdx.x % kWarpSize);
    if (lane < count) Arrive(ring.empty + SlotAfter(slot, lane));
  }

  __device__ __forceinline__ void StartScores() {
    keys_slot = scoring.slot;
    BeginProducts();
#pragma unroll
    for (int block = 0; block < kKeyBlocks; ++block) {
      WaitFor(ring.full + scoring.slot, scoring.parity);
      const uint32_t keys = SharedAddress(ring.blocks) + scoring.slot * kColumnBlockBytes;
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        MultiplyColumns(scores, ColumnDescriptor(queries + block * query_block_bytes + step * 32),
                        ColumnDescriptor(keys + step * 32), block + step > 0);
      }
      scoring.Next(ring.slots);
    }
    CommitProducts();
  }

  __device__ __forceinline__ void StartSums(const uint32_t (&weights)[4][4], bool add) {
    BeginProducts();
#pragma unroll
    for (int block = 0; block < kValueBlocks; ++block) {
      const uint32_t values = SharedAddress(ring.blocks) +
                              SlotAfter(keys_slot, first_value_block + block) * kColumnBlockBytes;
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        MultiplyRows(sums[block], weights[step],
                     RowDescriptor(values + step * 16 * kSwizzledRowBytes, kColumnBlockBytes),
                     add || step > 0);
      }
    }
    CommitProducts();
  }

  __device__ __forceinline__ void PinAll() {
#pragma unroll
    for (int block = 0; block < kValueBlocks; ++block) PinSums(sums[block]);
  }

  // The sums, and their softmax, are those of a part that ends with `last_tile`.
  __device__ __forceinline__ void EndPart(const UnitRows& rows, int last_tile) {
    const int part = PartOfTile(last_tile);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const PartMerge merge = softmax.Finish(r, params.attention.scale_log2);
      if (!SeesPart<Seen::kWindow>(rows, r, part)) continue;
#pragma unroll
      for (int block = 0; block < kValueBlocks; ++block) {
        StorePartial(params, rows, r, part, (first_value_block + block) * kBlockColumns,
                     sums[block]);
      }
      if (first_value_block == 0) StorePartialSoftmax(params, rows, r, part, merge);
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
  asm volatile("bar.sync 1, %0;\n" ::"n"(LatentSizes::kWarpgroups * kWarpgroupThreads) : "memory");
  const int warpgroup = thread / kWarpgroupThreads;
  LatentComputer computer = {params,
                             task,
                             ring,
                             SharedAddress(queries),
                             static_cast<uint32_t>(query_rows * kSwizzledRowBytes),
                             warpgroup * LatentSizes::kValueBlocks};
  computer.Run(rows);
}

// Grid: blocks of rows in x, slices of the query heads in y, shares of the context in z.
__global__ void __launch_bounds__(LatentSizes::kThreads, 1)
    LatentAttentionKernel(const __grid_constant__ UnitAttentionParams params) {
  extern __shared__ __align__(1024) std::byte latent_shared[];
  UnitTask task;
  WaitForEarlierKernels();
  LetNextKernelBegin();
  if (!FindTask<LatentSizes, Seen::kWindow>(params, task)) return;
  if (!TakeShare(params, task)) return;
  const int query_rows = min(kUnitRows, (params.tokens_a_warpgroup * task.heads + 15) / 16 * 16);
  const LatentRing ring = MakeLatentRing(latent_shared, query_rows);
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
