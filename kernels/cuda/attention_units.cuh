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
  // The step's tokens that this launch is for; `partial` begins with the first.
  int first_token = 0;
  int end_token = 0;
  bool one_each = false;     // a block has one token: the one of its number
  bool q_aligned = false;    // rows of q to 16 bytes
  bool out_aligned = false;  // rows of out to 8 bytes
};

// Sizes of a kernel: keys and values in column blocks of 64 channels.
template <int kKeyBlocksGiven, int kValueBlocksGiven, int kWarpgroupsGiven, bool kWholeGiven>
struct UnitSizes {
  static constexpr int kKeyBlocks = kKeyBlocksGiven;
  static constexpr int kValueBlocks = kValueBlocksGiven;
  static constexpr int kWarpgroups = kWarpgroupsGiven;  // that compute
  static constexpr int kTokenWarpgroups = kWarpgroups;  // each with tokens of its own
  static constexpr bool kWhole = kWholeGiven;           // all parts, merged here
  static constexpr int kThreads = (kWarpgroups + 1) * kWarpgroupThreads;
  static constexpr int kSums = kValueBlocks * 32;  // a thread has of O
  static constexpr int kSlotBytes =
      (kKeyBlocks > kValueBlocks ? kKeyBlocks : kValueBlocks) * kColumnBlockBytes;
  static constexpr int kQueryBytes = kKeyBlocks * kColumnBlockBytes;  // of a warpgroup
  // Two blocks share a multiprocessor where heads are not large.
  static constexpr bool kTwo = kWarpgroups == 1 && kKeyBlocks <= 2 && kValueBlocks <= 2;
  // Sums that do not fit in registers beside those in progress.
  static constexpr bool kMergedInShared = kWhole && kValueBlocks > 2;
  static constexpr int kMergedBytes =
      kMergedInShared ? kSums * kWarpgroupThreads * static_cast<int>(sizeof(float)) : 0;
  static constexpr int kBarrierBytes = 1024;
  static constexpr int kMostBytes = kTwo ? 115712 : 231424;
  static constexpr int kSlotsThatFit =
      (kMostBytes - kBarrierBytes - kWarpgroups * (kQueryBytes + kMergedBytes)) / kSlotBytes;
  static constexpr int kSlots = kSlotsThatFit > 12 ? 12 : kSlotsThatFit;
  static constexpr int kSharedBytes =
      kBarrierBytes + kWarpgroups * (kQueryBytes + kMergedBytes) + kSlots * kSlotBytes;
  // Slots under way behind the one being filled.
  static constexpr int kAhead = kWarpgroups == 1 ? kSlots - 2 : 3;
  static_assert(kSlots >= 3);
};

template <class Sizes>
struct UnitShared {
  std::byte* slots;
  std::byte* queries;  // of all warpgroups
  std::byte* merged;
  uint64_t* full;   // [slots]
  uint64_t* empty;  // [slots]

  __device__ explicit UnitShared(std::byte* shared)
      : slots(shared),
        queries(slots + Sizes::kSlots * Sizes::kSlotBytes),
        merged(queries + Sizes::kWarpgroups * Sizes::kQueryBytes),
        full(reinterpret_cast<uint64_t*>(merged + Sizes::kWarpgroups * Sizes::kMergedBytes)),
        empty(full + Sizes::kSlots) {}
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
  const auto block = static_cast<int>(gridDim.x - 1 - blockIdx.x);  // long contexts first
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

// ---- The warpgroup that loads ----

// Copies tiles of keys and values to the ring. Each thread has one chunk of some rows.
template <class Sizes, Seen kSeen>
struct UnitLoader {
  static constexpr int kThreadsARow = kSwizzledRowBytes / 16;
  static constexpr int kRowsAPass = kWarpgroupThreads / kThreadsARow;
  static constexpr int kPasses = kAttentionTile / kRowsAPass;

  const AttentionParams& params;
  const UnitTask& task;
  const UnitShared<Sizes>& shared;
  int row = static_cast<int>(threadIdx.x) % kWarpgroupThreads / kThreadsARow;
  int chunk = static_cast<int>(threadIdx.x) % kThreadsARow;
  int filled = 0;     // slots
  int announced = 0;  // of them, as full
  // Of 32 tiles, a lane each: their numbers among those of the sequence, and pages.
  int batch_first = -kWarpSize;
  int tile_of_lane = 0;
  uint32_t page_of_lane = 0;

  __device__ void FindPages(int tile) {
    batch_first = tile;
    const int mine = min(tile + static_cast<int>(threadIdx.x) % kWarpSize, task.seen.end_tile - 1);
    tile_of_lane = TileEntry<kSeen>(params, task.first_token, task.kv_head, mine) / kAttentionTile;
    page_of_lane = params.tables.pages[task.slot * params.tables.stride + tile_of_lane];
  }

  // The next slot, once it may be filled.
  __device__ std::byte* AwaitSlot() {
    const int slot = filled % Sizes::kSlots;
    if (filled >= Sizes::kSlots) {
      const uint32_t parity = (filled / Sizes::kSlots - 1) & 1;
      if (!PhaseEnded(shared.empty + slot, parity)) {
        AnnounceAll();  // whoever is to free it may be waiting for one of these
        WaitForPhase(shared.empty + slot, parity);
      }
    }
    ++filled;
    return shared.slots + slot * Sizes::kSlotBytes;
  }

  __device__ void Load(const KvStream& stream, int tile, int blocks) {
    std::byte* to = AwaitSlot();
    const int64_t page = __shfl_sync(kAllLanes, page_of_lane, tile - batch_first);
    const int first =
        __shfl_sync(kAllLanes, tile_of_lane, tile - batch_first) * kAttentionTile + row;
    const int head_dim = stream.head_dim;
    const auto* from = reinterpret_cast<const CudaBf16*>(stream.base + page * stream.page_bytes) +
                       (static_cast<int64_t>(task.kv_head) * kAttentionTile + row) * head_dim;
    for (int block = 0; block < blocks; ++block) {
      const int channel = block * kBlockColumns + chunk * 8;
      const bool inside = channel < head_dim;
#pragma unroll
      for (int i = 0; i < kPasses; ++i) {
        const int entry = first + i * kRowsAPass;
        const bool valid = inside && entry >= task.seen.first_entry && entry < task.seen.end_entry;
        CopyAsync16(to + block * kColumnBlockBytes + SwizzledOffset(row + i * kRowsAPass, chunk),
                    valid ? from + i * kRowsAPass * head_dim + channel : from, valid);
      }
    }
    CommitCopies();
    if (filled - announced > Sizes::kAhead) {
      WaitForCopies<Sizes::kAhead>();
      Announce();
    }
  }

  __device__ void Announce() {
    FenceForProducts();
    Arrive(shared.full + announced % Sizes::kSlots);
    ++announced;
  }

  __device__ void AnnounceAll() {
    WaitForCopies<0>();
    while (announced < filled) Announce();
  }

  __device__ void Run() {
    for (int tile = task.seen.first_tile; tile < task.seen.end_tile; ++tile) {
      if (tile - batch_first >= kWarpSize) FindPages(tile);
      Load(params.k, tile, Sizes::kKeyBlocks);
      Load(params.v, tile, Sizes::kValueBlocks);
    }
    AnnounceAll();
  }
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_ATTENTION_UNITS_CUH_
