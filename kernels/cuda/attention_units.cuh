// Attention over bf16 keys and values on the matrix units (wgmma), for decode and prompts alike.
//
// A row is a token's query head; a warpgroup has 64 rows: a few tokens of one sequence, each with
// the query heads of one KV head. A block of threads has one or two such warpgroups, which share
// the tiles of 64 entries that one more warpgroup brings in, in a ring in shared memory. For each
// tile
//     S = Q K^T    P = exp2(scale S - largest)    O = O exp2(before - largest) + P V
// with Q and P rounded to bf16 and S, O and the sums of P in f32; Q and K are read from shared
// memory, P stays in registers.
//
// Invariants: nothing is read outside of the entries that a token sees. A row's products run over
// the tiles that its token sees in order, restart with each part (attention_choice.h) and are
// merged in order; a tile of which a row sees nothing leaves the row's bits alone. So a token's
// bits depend neither on the rows beside it nor on how many blocks share out its context.
#ifndef TROUPE_KERNELS_CUDA_ATTENTION_UNITS_CUH_
#define TROUPE_KERNELS_CUDA_ATTENTION_UNITS_CUH_

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_choice.h"
#include "kernels/cuda/wgmma.cuh"

namespace troupe {

struct UnitAttentionParams {
  AttentionParams attention;          // its `partial` is [T, H, parts, Dv]
  float2* partial_softmax = nullptr;  // [T, H, parts] largest score and sum of weights
  int slices = 1;  // blocks that share out a KV head's query heads, kUnitRows each
  int tokens_a_warpgroup = 1;
  int tiles_a_block = 0;  // see ContextCut
  // The step's tokens that this launch is for; `partial` begins with the first.
  int first_token = 0;
  int end_token = 0;
  int first_block = 0;  // of rows, that the launch begins with (attention_choice.h, FirstRowBlock)
  bool in_groups = false;      // parts are merged in groups (attention_choice.h)
  bool groups_merged = false;  // by the blocks that form them: `partial` has groups for parts
  bool one_each = false;       // a block has one token: the one of its number
  bool q_aligned = false;      // rows of q to 16 bytes
  bool out_aligned = false;    // rows of out to 8 bytes
  // kCompressed: [tokens of the launch, H, score_stride] out: scores, before they are scaled, by
  // entry, in whole tiles; those of entries that are not seen are -inf. May be null.
  float* scores = nullptr;
  int64_t score_stride = 0;
  CUtensorMap keys;  // see MapPages
  CUtensorMap values;
};

// Sizes of a kernel: keys and values in column blocks of 64 channels.
template <int kKeyBlocksGiven, int kValueBlocksGiven, int kWarpgroupsGiven, bool kWholeGiven,
          bool kCodedGiven = false>
struct UnitSizes {
  static constexpr int kKeyBlocks = kKeyBlocksGiven;
  static constexpr int kValueBlocks = kValueBlocksGiven;
  static constexpr int kWarpgroups = kWarpgroupsGiven;  // that compute
  static constexpr int kTokenWarpgroups = kWarpgroups;  // each with tokens of its own
  static constexpr bool kWhole = kWholeGiven;           // all parts, merged here
  static constexpr bool kCoded = kCodedGiven;  // keys and values in FP8 (attention_codes.cuh)
  static constexpr int kThreads = (kWarpgroups + 1) * kWarpgroupThreads;
  static constexpr int kSums = kValueBlocks * 32;  // a thread has of O
  static constexpr int kSlotBytes =
      (kKeyBlocks > kValueBlocks ? kKeyBlocks : kValueBlocks) * kColumnBlockBytes;
  // Products that read one operand in shared memory instead of two leave its bandwidth to others.
  static constexpr bool kQueriesInRegisters = kKeyBlocks <= 2 && (kWarpgroups == 2 || !kWhole);
  static constexpr int kQueryBytes =  // of a warpgroup
      kQueriesInRegisters ? 0 : kKeyBlocks * kColumnBlockBytes;
  // Two blocks share a multiprocessor where heads are not large.
  static constexpr bool kTwo = kWarpgroups == 1 && kKeyBlocks <= 2 && kValueBlocks <= 2;
  // Sums that do not fit in registers beside those in progress.
  static constexpr bool kMergedInShared = kWhole && kValueBlocks > 2;
  static constexpr int kMergedBytes =
      kMergedInShared ? kSums * kWarpgroupThreads * static_cast<int>(sizeof(float)) : 0;
  // Tiles of codes that are under way, or about to become bf16 in a slot; a warp has 16 rows of
  // each, with their scales.
  static constexpr int kCodeStages = kKeyBlocks > 2 ? (kWhole ? 2 : 5) : kTwo&& kWhole ? 5 : 7;
  static constexpr int kCodeRows = 16;
  static constexpr int kCodeStageBytes =
      kCodeRows * ((kKeyBlocks > kValueBlocks ? kKeyBlocks : kValueBlocks) * 64 + 1);
  static constexpr int kCodeBytes = kCoded ? 4 * kCodeStages * kCodeStageBytes : 0;
  static constexpr int kBarrierBytes = 1024;
  static constexpr int kMostBytes = kTwo ? 115712 : 231424;
  static constexpr int kSlotsThatFit =
      (kMostBytes - kBarrierBytes - kCodeBytes - kWarpgroups * (kQueryBytes + kMergedBytes)) /
      kSlotBytes;
  static constexpr int kSlots = kSlotsThatFit > 12 ? 12 : kSlotsThatFit;
  static constexpr int kSharedBytes =
      kBarrierBytes + kCodeBytes + kWarpgroups * (kQueryBytes + kMergedBytes) + kSlots * kSlotBytes;
  static_assert(kSlots >= 3);
};

template <class Sizes>
struct UnitShared {
  std::byte* slots;
  std::byte* queries;  // of all warpgroups
  std::byte* merged;
  std::byte* codes;
  uint64_t* full;   // [slots]
  uint64_t* empty;  // [slots]
  uint64_t* edge;   // see EdgeTile

  __device__ explicit UnitShared(std::byte* shared)
      : slots(shared),
        queries(slots + Sizes::kSlots * Sizes::kSlotBytes),
        merged(queries + Sizes::kWarpgroups * Sizes::kQueryBytes),
        codes(merged + Sizes::kWarpgroups * Sizes::kMergedBytes),
        full(reinterpret_cast<uint64_t*>(codes + Sizes::kCodeBytes)),
        empty(full + Sizes::kSlots),
        edge(empty + Sizes::kSlots) {}
};

// What a block of threads does. The ranges cover what any of its tokens sees.
struct UnitTask {
  int first_token;  // of the step
  int end_token;
  uint32_t slot;
  int kv_head;
  int first_head;  // of the query heads
  int heads;       // that each token has here
  SeenEntries seen;
};

// The sequence whose blocks `block` is one of. Called by whole warps.
__device__ __forceinline__ int FindRow(const BatchView& batch, int block, int tokens_a_block) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  int first = 0;
  int step = 1;
  while (step * kWarpSize < batch.rows) step *= kWarpSize;
  for (; step > 0; step /= kWarpSize) {
    const int row = first + lane * step;
    const bool begun =
        row < batch.rows && FirstRowBlock(batch.first[row], row, tokens_a_block) <= block;
    first += (__popc(__ballot_sync(kAllLanes, begun)) - 1) * step;
  }
  return first;
}

// False where the block has nothing to do. Called by whole warps.
template <class Sizes, Seen kSeen>
__device__ __forceinline__ bool FindTask(const UnitAttentionParams& params, UnitTask& task) {
  const AttentionParams& attention = params.attention;
  const BatchView& batch = attention.batch;
  const int tokens_a_block = params.tokens_a_warpgroup * Sizes::kTokenWarpgroups;
  // Long contexts first.
  const int block = params.first_block + static_cast<int>(gridDim.x - 1 - blockIdx.x);
  const int group_heads = attention.heads / attention.k.kv_heads;
  const int first_head = static_cast<int>(blockIdx.y) % params.slices * kUnitRows;
  task.kv_head = static_cast<int>(blockIdx.y) / params.slices;
  task.first_head = task.kv_head * group_heads + first_head;
  task.heads = min(kUnitRows, group_heads - first_head);
  int row = 0;
  if (params.one_each) {
    row = batch.token_row[block];
    task.first_token = block;
    task.end_token = block + 1;
  } else {
    row = FindRow(batch, block, tokens_a_block);
    const int first = batch.first[row];
    task.first_token = first + (block - FirstRowBlock(first, row, tokens_a_block)) * tokens_a_block;
    task.end_token = min(batch.first[row + 1], task.first_token + tokens_a_block);
  }
  task.first_token = max(task.first_token, params.first_token);
  task.end_token = min(task.end_token, params.end_token);
  if (task.first_token >= task.end_token) return false;
  task.slot = batch.slot[row];
  task.seen = FindSeen<kSeen>(attention, task.first_token, task.kv_head);
  if (!params.one_each) {
    const SeenEntries last = FindSeen<kSeen>(attention, task.end_token - 1, task.kv_head);
    task.seen.end_entry = last.end_entry;
    task.seen.end_tile = last.end_tile;
  }
  return true;
}

// Leaves a task the tiles of the block's share of the context; false where it has none.
__device__ __forceinline__ bool TakeShare(const UnitAttentionParams& params, UnitTask& task) {
  const auto share = static_cast<int>(blockIdx.z);
  task.seen.first_tile = max(task.seen.first_tile, FirstTileOfCut(params.tiles_a_block, share));
  task.seen.end_tile = min(task.seen.end_tile, FirstTileOfCut(params.tiles_a_block, share + 1));
  return task.seen.first_tile < task.seen.end_tile;
}

// Whether any row of a block is open. Called by whole warps.
__device__ __forceinline__ bool AnyOpen(const AttentionParams& params, const UnitTask& task) {
  if (params.mix.factor == nullptr) return true;
  const int count = (task.end_token - task.first_token) * task.heads;
  bool open = false;
  for (int i = static_cast<int>(threadIdx.x) % kWarpSize; i < count; i += kWarpSize) {
    open = open || FactorOf(params.mix, task.first_token + i / task.heads,
                            task.first_head + i % task.heads) != 0;
  }
  return __any_sync(kAllLanes, open);
}

// Zeros for all rows of a block. Called by all of its threads.
__device__ __forceinline__ void ClearRows(const UnitAttentionParams& params, const UnitTask& task) {
  const AttentionParams& attention = params.attention;
  const int cols = task.heads * attention.v.head_dim;
  for (int token = task.first_token; token < task.end_token; ++token) {
    float* out =
        attention.out + token * attention.out_stride + task.first_head * attention.v.head_dim;
    for (int c = static_cast<int>(threadIdx.x); c < cols; c += static_cast<int>(blockDim.x)) {
      out[c] = 0;
    }
  }
}

// ---- The warp that loads ----

// Which entries of a tile a block sees. Of others nothing may come near a product with their
// values: a weight of zero does not make up for what is not a number.
struct EdgeTile {
  int begin;
  int end;

  __device__ __forceinline__ EdgeTile(const SeenEntries& seen, int first_entry)
      : begin(max(0, seen.first_entry - first_entry)),
        end(min(kAttentionTile, seen.end_entry - first_entry)) {}
  __device__ __forceinline__ bool whole() const { return begin == 0 && end == kAttentionTile; }

  // Zeros for the others in column blocks. Called by a warp.
  __device__ __forceinline__ void Clear(std::byte* blocks, int count) const {
    constexpr int kRowChunks = kSwizzledRowBytes / 16;
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    for (int row = lane / kRowChunks; row < kAttentionTile; row += kWarpSize / kRowChunks) {
      if (row >= begin && row < end) continue;
      for (int block = 0; block < count; ++block) {
        *reinterpret_cast<uint4*>(blocks + block * kColumnBlockBytes + row * kSwizzledRowBytes +
                                  lane % kRowChunks * 16) = uint4{0, 0, 0, 0};
      }
    }
    FenceForProducts();
    __syncwarp();
  }
};

// Copies tiles of keys and values to the ring.
template <class Sizes, Seen kSeen>
struct UnitLoader {
  const UnitAttentionParams& params;
  const UnitTask& task;
  const UnitShared<Sizes>& shared;
  bool leads = threadIdx.x % kWarpSize == 0;
  int filled = 0;  // slots
  uint32_t edge_parity = 0;
  // Of 32 tiles, a lane each: their numbers among those of the sequence, and pages.
  int batch_first = -kWarpSize;
  int tile_of_lane = 0;
  uint32_t page_of_lane = 0;

  __device__ void FindPages(int tile) {
    const AttentionParams& attention = params.attention;
    batch_first = tile;
    const int mine = min(tile + static_cast<int>(threadIdx.x) % kWarpSize, task.seen.end_tile - 1);
    tile_of_lane =
        TileEntry<kSeen>(attention, task.first_token, task.kv_head, mine) / kAttentionTile;
    page_of_lane = attention.tables.pages[task.slot * attention.tables.stride + tile_of_lane];
  }

  // The number of the next slot, once it may be filled.
  __device__ __forceinline__ int AwaitSlot() {
    const int slot = filled % Sizes::kSlots;
    if (filled >= Sizes::kSlots) {
      WaitFor(shared.empty + slot, (filled / Sizes::kSlots - 1) & 1);
    }
    ++filled;
    return slot;
  }

  __device__ __forceinline__ void Copy(const CUtensorMap& map, int page, int slot, int blocks,
                                       uint64_t* barrier) {
    if (kSeen == Seen::kCompressed) {
      CopyPieces(map, slot, blocks, barrier);
      return;
    }
    if (!leads) return;
    ArriveExpecting(barrier, blocks * kColumnBlockBytes);
    std::byte* to = shared.slots + slot * Sizes::kSlotBytes;
    for (int block = 0; block < blocks; ++block) {
      CopyTensor3(to + block * kColumnBlockBytes, &map, block * kBlockColumns,
                  task.kv_head * kAttentionTile, page, barrier);
    }
  }

  // A tile of compressed entries lies in many pages of few entries; every lane has some. Pages
  // without entries that are seen may not exist.
  int piece_tile = 0;

  __device__ __forceinline__ void CopyPieces(const CUtensorMap& map, int slot, int blocks,
                                             uint64_t* barrier) {
    const AttentionParams& attention = params.attention;
    const int entries = attention.k.entries_per_page;
    const int first = max(task.seen.first_entry, piece_tile * kAttentionTile) / entries;
    const int end = (min(task.seen.end_entry, (piece_tile + 1) * kAttentionTile) - 1) / entries + 1;
    if (leads) {
      ArriveExpecting(barrier, (end - first) * entries * kSwizzledRowBytes * blocks);
    }
    __syncwarp();
    const uint32_t* pages = attention.tables.pages + task.slot * attention.tables.stride;
    for (int piece = first + static_cast<int>(threadIdx.x) % kWarpSize; piece < end;
         piece += kWarpSize) {
      const auto page = static_cast<int>(pages[piece]);
      std::byte* to = shared.slots + slot * Sizes::kSlotBytes +
                      (piece * entries - piece_tile * kAttentionTile) * kSwizzledRowBytes;
      for (int block = 0; block < blocks; ++block) {
        CopyTensor3(to + block * kColumnBlockBytes, &map, block * kBlockColumns,
                    task.kv_head * entries, page, barrier);
      }
    }
    __syncwarp();
  }

  __device__ void Run() {
    for (int tile = task.seen.first_tile; tile < task.seen.end_tile; ++tile) {
      int page = 0;
      int tile_number = tile;  // in the sequence
      if constexpr (kSeen != Seen::kCompressed) {
        if (tile - batch_first >= kWarpSize) FindPages(tile);
        page = static_cast<int>(__shfl_sync(kAllLanes, page_of_lane, tile - batch_first));
        tile_number = __shfl_sync(kAllLanes, tile_of_lane, tile - batch_first);
      }
      piece_tile = tile_number;
      const EdgeTile edge(task.seen, tile_number * kAttentionTile);
      int slot = AwaitSlot();
      Copy(params.keys, page, slot, Sizes::kKeyBlocks, shared.full + slot);
      slot = AwaitSlot();
      if (edge.whole()) {
        Copy(params.values, page, slot, Sizes::kValueBlocks, shared.full + slot);
        continue;
      }
      Copy(params.values, page, slot, Sizes::kValueBlocks, shared.edge);
      WaitFor(shared.edge, edge_parity);
      edge_parity ^= 1;
      edge.Clear(shared.slots + slot * Sizes::kSlotBytes, Sizes::kValueBlocks);
      if (leads) Arrive(shared.full + slot);
    }
  }
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_ATTENTION_UNITS_CUH_
