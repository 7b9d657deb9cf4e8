// How tiles of compressed entries come into the ring of kernels/cuda/attention_units.cuh: they lie
// in pages of a few entries, for which the tensor copies are too many. All warps of the loading
// warpgroup copy, each thread 16 bytes at a time.
#ifndef TROUPE_KERNELS_CUDA_ATTENTION_PIECES_CUH_
#define TROUPE_KERNELS_CUDA_ATTENTION_PIECES_CUH_

#include <algorithm>

#include "kernels/cuda/attention_units.cuh"

namespace troupe {

template <class Sizes>
struct PieceLoader {
  static constexpr int kWarps = kWarpgroupThreads / kWarpSize;  // arrivals that fill a slot
  static constexpr int kWarpRows = kAttentionTile / kWarps;
  // Slots that are being filled at once. The products of the values in a slot begin when the next
  // one, the next tile's keys, is full: so two fewer than there are.
  static constexpr int kUnderWay = std::min(4, Sizes::kSlots - 2);

  const UnitAttentionParams& params;
  const UnitTask& task;
  const UnitShared<Sizes>& shared;
  int filled = 0;  // slots

  // Slot `fill` is full, as far as this warp goes. Products read what ordinary copies wrote.
  __device__ __forceinline__ void Arrived(int fill) {
    FenceForProducts();
    __syncwarp();
    if (threadIdx.x % kWarpSize == 0) Arrive(shared.full + fill % Sizes::kSlots);
  }

  // The next slot gets the tile of a stream, zeros for entries that are not seen.
  template <int kBlocks>
  __device__ __forceinline__ void Fill(const KvStream& stream, int tile) {
    constexpr int kChunks = kBlocks * kSwizzledRowBytes / 16;  // of a row
    constexpr int kCopies = kWarpRows * kChunks / kWarpSize;
    const auto lane = static_cast<int>(threadIdx.x % kWarpSize);
    const auto first_row = static_cast<int>(threadIdx.x / kWarpSize) * kWarpRows;
    const int shift = 31 - __clz(stream.entries_per_page);
    const BlockTables& tables = params.attention.tables;
    const uint32_t* pages = tables.pages + task.slot * tables.stride;
    uint32_t page[kCopies];
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int entry = tile * kAttentionTile + first_row + (i * kWarpSize + lane) / kChunks;
      // Pages of entries that are not seen may not exist.
      page[i] = pages[min(max(entry, task.seen.first_entry), task.seen.end_entry - 1) >> shift];
    }
    const int slot = filled % Sizes::kSlots;
    if (filled >= Sizes::kSlots) WaitFor(shared.empty + slot, (filled / Sizes::kSlots - 1) & 1);
    std::byte* to = shared.slots + slot * Sizes::kSlotBytes;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int row = first_row + (i * kWarpSize + lane) / kChunks;
      const int chunk = (i * kWarpSize + lane) % kChunks;
      const int entry = tile * kAttentionTile + row;
      const bool valid = entry >= task.seen.first_entry && entry < task.seen.end_entry &&
                         chunk * 8 < stream.head_dim;
      const int row_in_page = (task.kv_head << shift) + (entry & (stream.entries_per_page - 1));
      const std::byte* from = stream.base + page[i] * stream.page_bytes +
                              (row_in_page * stream.head_dim + chunk * 8) * 2;
      CopyAsync16(to + chunk / 8 * kColumnBlockBytes + SwizzledOffset(row, chunk % 8),
                  valid ? from : stream.base, valid);
    }
    CommitCopies();
    WaitForCopies<kUnderWay>();
    if (filled >= kUnderWay) Arrived(filled - kUnderWay);
    ++filled;
  }

  __device__ void Run() {
    for (int tile = task.seen.first_tile; tile < task.seen.end_tile; ++tile) {
      Fill<Sizes::kKeyBlocks>(params.attention.k, tile);
      Fill<Sizes::kValueBlocks>(params.attention.v, tile);
    }
    WaitForCopies<0>();
    for (int fill = max(0, filled - kUnderWay); fill < filled; ++fill) Arrived(fill);
  }
};

// Whether a kernel's tiles come so. Two warpgroups share a tile, which then comes seldom, and leave
// no registers for it.
template <class Sizes, Seen kSeen>
inline constexpr bool kLoadsPieces = kSeen == Seen::kCompressed&& Sizes::kWarpgroups == 1;

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_ATTENTION_PIECES_CUH_
