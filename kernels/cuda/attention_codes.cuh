// How tiles of keys and values in FP8 (kernels/e4m3.h) come into the ring of
// kernels/cuda/attention_units.cuh: as bf16, which holds what codes stand for exactly, so that all
// that follows is as for bf16. Each warp of the loading warpgroup has 16 rows of every tile: it
// copies their codes and scales to stages of its own, some tiles ahead, and widens them from there.
#ifndef TROUPE_KERNELS_CUDA_ATTENTION_CODES_CUH_
#define TROUPE_KERNELS_CUDA_ATTENTION_CODES_CUH_

#include "kernels/cuda/attention_units.cuh"
#include "kernels/e4m3.h"

namespace troupe {

// Two bf16 with the number that turns a code whose bits stand where bf16 has them into what it
// stands for: exponents of bf16 begin 120 further down.
__device__ __forceinline__ uint32_t CodeFactor(uint8_t scale) {
  constexpr uint32_t kRebias = 127 - 7;
  constexpr uint32_t kNan = 0x7fc0;
  const uint32_t factor = scale == kNanScale ? kNan : (scale + kRebias) << 7;
  return factor | factor << 16;
}

// Codes 0 and 1, or 2 and 3, of a word.
template <int kPair>
__device__ __forceinline__ uint32_t WidenCodes(uint32_t word, uint32_t factor) {
  const uint32_t spread = __byte_perm(word, 0, kPair == 0 ? 0x1404 : 0x3424);
  const uint32_t bits = (spread & 0x80008000U) | ((spread >> 4) & 0x07f007f0U);
  uint32_t numbers;
  asm("mul.rn.bf16x2 %0, %1, %2;\n" : "=r"(numbers) : "r"(bits), "r"(factor));
  return numbers;
}

template <class Sizes>
struct CodedLoader {
  static constexpr int kWarps = kWarpgroupThreads / kWarpSize;  // arrivals that fill a slot
  static constexpr int kRows = Sizes::kCodeRows;
  static_assert(kWarps * kRows == kAttentionTile);

  const UnitAttentionParams& params;
  const UnitTask& task;
  const UnitShared<Sizes>& shared;
  int warp = static_cast<int>(threadIdx.x / kWarpSize);
  int lane = static_cast<int>(threadIdx.x % kWarpSize);
  // Of 32 tiles, a lane each.
  int batch_first = -kWarpSize;
  uint32_t page_of_lane = 0;

  __device__ __forceinline__ std::byte* Stage(int fill) const {
    return shared.codes +
           (warp * Sizes::kCodeStages + fill % Sizes::kCodeStages) * Sizes::kCodeStageBytes;
  }

  // Starts the copies of the warp's rows of a tile.
  template <int kBlocks>
  __device__ __forceinline__ void StartRows(const KvStream& stream, uint32_t page, std::byte* to) {
    constexpr int kCopies = kRows * kBlocks * 64 / 16 / kWarpSize;
    const int size = stream.head_dim;
    const std::byte* in_page = stream.base + page * stream.page_bytes;
    const int row = task.kv_head * kAttentionTile + warp * kRows;
    const std::byte* codes = in_page + row * size + lane * 16;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      if (lane + i * kWarpSize < size * kRows / 16) {
        CopyAsync16(to + (lane + i * kWarpSize) * 16, codes + i * kWarpSize * 16, /*valid=*/true);
      }
    }
    if (lane == 0) {
      CopyAsync16(to + size * kRows, in_page + stream.kv_heads * kAttentionTile * size + row,
                  /*valid=*/true);
    }
  }

  // Fill by fill: a tile's keys, then its values.
  template <bool kKeys>
  __device__ __forceinline__ void Start(int fill) {
    const AttentionParams& attention = params.attention;
    const int tile = task.seen.first_tile + fill / 2;
    if (tile >= task.seen.end_tile) return;
    if (kKeys && tile - batch_first >= kWarpSize) {
      batch_first = tile;
      page_of_lane = attention.tables.pages[task.slot * attention.tables.stride +
                                            min(tile + lane, task.seen.end_tile - 1)];
    }
    const uint32_t page = __shfl_sync(kAllLanes, page_of_lane, tile - batch_first);
    if constexpr (kKeys) {
      StartRows<Sizes::kKeyBlocks>(attention.k, page, Stage(fill));
    } else {
      StartRows<Sizes::kValueBlocks>(attention.v, page, Stage(fill));
    }
  }

  // The warp's rows of a fill, in bf16 column blocks; zeros for entries that are not seen. Without
  // branches, so that the rows' loads and products overlap.
  template <int kBlocks>
  __device__ __forceinline__ void Widen(int fill, int size, std::byte* slot) const {
    constexpr int kChunks = kBlocks * 4;  // of 16 codes
    constexpr int kTurns = kRows * kChunks / kWarpSize;
    constexpr int kAtOnce = kTurns < 4 ? kTurns : 4;
    const std::byte* stage = Stage(fill);
    const auto* scales = reinterpret_cast<const uint8_t*>(stage + size * kRows);
    const EdgeTile edge(task.seen, (task.seen.first_tile + fill / 2) * kAttentionTile);
    const int chunk = lane % kChunks;
    // Column blocks begin in the same bank: lanes of the odd ones have their second half first.
    const int first = chunk / 4 % 2;
    const bool inside = chunk * 16 < size;
#pragma unroll
    for (int begin = 0; begin < kTurns; begin += kAtOnce) {
      uint4 codes[kAtOnce];
      uint32_t factor[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int row = ((begin + i) * kWarpSize + lane) / kChunks;
        codes[i] = *reinterpret_cast<const uint4*>(stage + row * size + chunk * 16);
        factor[i] = CodeFactor(scales[row]);
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int row = warp * kRows + ((begin + i) * kWarpSize + lane) / kChunks;
        const bool seen = row >= edge.begin && row < edge.end && inside;
        const uint32_t by = seen ? factor[i] : 0;
        const uint32_t words[4] = {
            first == 0 ? codes[i].x : codes[i].z, first == 0 ? codes[i].y : codes[i].w,
            first == 0 ? codes[i].z : codes[i].x, first == 0 ? codes[i].w : codes[i].y};
        std::byte* to = slot + chunk / 4 * kColumnBlockBytes;
        *reinterpret_cast<uint4*>(to + SwizzledOffset(row, chunk % 4 * 2 + first)) = {
            WidenCodes<0>(words[0], by), WidenCodes<1>(words[0], by), WidenCodes<0>(words[1], by),
            WidenCodes<1>(words[1], by)};
        *reinterpret_cast<uint4*>(to + SwizzledOffset(row, chunk % 4 * 2 + (first ^ 1))) = {
            WidenCodes<0>(words[2], by), WidenCodes<1>(words[2], by), WidenCodes<0>(words[3], by),
            WidenCodes<1>(words[3], by)};
      }
    }
  }

  template <bool kKeys>
  __device__ __forceinline__ void Fill(int fill) {
    constexpr int kAhead = Sizes::kCodeStages - 1;
    Start<kKeys == (kAhead % 2 == 0)>(fill + kAhead);
    CommitCopies();
    WaitForCopies<kAhead>();
    const int slot = fill % Sizes::kSlots;
    if (fill >= Sizes::kSlots) WaitFor(shared.empty + slot, (fill / Sizes::kSlots - 1) & 1);
    __syncwarp();
    std::byte* to = shared.slots + slot * Sizes::kSlotBytes;
    if constexpr (kKeys) {
      Widen<Sizes::kKeyBlocks>(fill, params.attention.k.head_dim, to);
    } else {
      Widen<Sizes::kValueBlocks>(fill, params.attention.v.head_dim, to);
    }
    // Products read what ordinary stores wrote.
    FenceForProducts();
    __syncwarp();
    if (lane == 0) Arrive(shared.full + slot);
  }

  __device__ void Run() {
    constexpr int kAhead = Sizes::kCodeStages - 1;
    const int fills = (task.seen.end_tile - task.seen.first_tile) * 2;
#pragma unroll
    for (int fill = 0; fill < kAhead; ++fill) {
      if (fill % 2 == 0) {
        Start<true>(fill);
      } else {
        Start<false>(fill);
      }
      CommitCopies();
    }
    for (int fill = 0; fill < fills; fill += 2) {
      Fill<true>(fill);
      Fill<false>(fill + 1);
    }
  }
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_ATTENTION_CODES_CUH_
