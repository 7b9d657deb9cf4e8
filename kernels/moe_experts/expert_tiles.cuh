// Sorts a step's (token, choice) pairs by expert, cuts each expert's into tiles that are alike, and
// brings the rows of x into that order (for kernels/moe_experts/grouped_product.cuh).
//
// The order inside an expert is whatever the hardware makes of it: no row's result depends on its
// place, and sums over a token's experts are formed in the order of its choices.
#ifndef TROUPE_KERNELS_MOE_EXPERTS_EXPERT_TILES_CUH_
#define TROUPE_KERNELS_MOE_EXPERTS_EXPERT_TILES_CUH_

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/math.cuh"
#include "kernels/moe_experts/moe_experts_choice.h"

namespace troupe {

inline constexpr int kExpertTilesThreads = kMostGroupedExperts;
inline constexpr int kTileRowsUnit = 16;
inline constexpr int kSpreadThreads = 256;

// Pointers are to device memory.
struct ExpertTiles {
  const int32_t* chosen = nullptr;  // [pairs], pair = token * top_k + choice; negative: none
  int pairs = 0;
  int experts = 0;
  int most_rows = 0;         // of a tile; a multiple of kTileRowsUnit
  int unit = 1;              // an expert's first sorted row is a multiple of it: a power of two
  int32_t* group = nullptr;  // [tiles] out: the expert of each tile
  int32_t* first = nullptr;  // [tiles] out: its first sorted row
  int32_t* rows = nullptr;   // [tiles] out: how many it has
  int32_t* count = nullptr;  // [1] out: tiles
  int32_t* place = nullptr;  // [pairs] out: sorted row of a pair, or -1
};

// Calls visit(pair, expert) for this thread's pairs, whose loads go out several at a time.
template <class Visit>
__device__ __forceinline__ void ForEachPair(const ExpertTiles& tiles, const Visit& visit) {
  constexpr int kAhead = 8;
  for (int first = static_cast<int>(threadIdx.x); first < tiles.pairs;
       first += kAhead * kExpertTilesThreads) {
    int experts[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      experts[i] = tiles.chosen[min(first + i * kExpertTilesThreads, tiles.pairs - 1)];
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int pair = first + i * kExpertTilesThreads;
      if (pair < tiles.pairs) visit(pair, experts[i]);
    }
  }
}

// The sum of the values of all threads before this one.
__device__ __forceinline__ uint64_t SumBefore(uint64_t value) {
  __shared__ uint64_t warp_sums[kExpertTilesThreads / kWarpSize];
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  uint64_t sum = value;
#pragma unroll
  for (int step = 1; step < kWarpSize; step *= 2) {
    const uint64_t before = __shfl_up_sync(kAllLanes, sum, step);
    if (lane >= step) sum += before;
  }
  if (lane == kWarpSize - 1) warp_sums[warp] = sum;
  __syncthreads();
  for (int w = 0; w < warp; ++w) sum += warp_sums[w];
  return sum - value;
}

// One block. Dynamic shared memory: one number an expert.
static __global__ void __launch_bounds__(kExpertTilesThreads)
    SortIntoTilesKernel(ExpertTiles tiles) {
  LetNextKernelBegin();
  extern __shared__ int32_t next_row[];  // pairs of an expert, then its next free row
  const int expert = static_cast<int>(threadIdx.x);
  const bool is_expert = expert < tiles.experts;
  if (is_expert) next_row[expert] = 0;
  __syncthreads();
  WaitForEarlierKernels();
  ForEachPair(tiles, [&](int /*pair*/, int e) {
    if (e >= 0) atomicAdd(&next_row[e], 1);
  });
  __syncthreads();
  const int rows = is_expert ? next_row[expert] : 0;
  const int least_tiles = (rows + tiles.most_rows - 1) / tiles.most_rows;
  const int alike = rows > 0 ? (rows + least_tiles - 1) / least_tiles : 1;
  const int tile_rows = (alike + kTileRowsUnit - 1) / kTileRowsUnit * kTileRowsUnit;
  const int own_tiles = (rows + tile_rows - 1) / tile_rows;
  const int room = (rows + tiles.unit - 1) & -tiles.unit;
  // Tiles in the upper half, rows in the lower one.
  const uint64_t before = SumBefore(static_cast<uint64_t>(own_tiles) << 32 | room);
  const auto first = static_cast<int>(before & 0xffffffffU);
  const auto first_tile = static_cast<int>(before >> 32);
  if (is_expert) {
    next_row[expert] = first;
    for (int tile = 0; tile < own_tiles; ++tile) {
      tiles.group[first_tile + tile] = expert;
      tiles.first[first_tile + tile] = first + tile * tile_rows;
      tiles.rows[first_tile + tile] = min(tile_rows, rows - tile * tile_rows);
    }
    if (expert == tiles.experts - 1) *tiles.count = first_tile + own_tiles;
  }
  __syncthreads();
  ForEachPair(tiles, [&](int pair, int e) {
    tiles.place[pair] = e >= 0 ? atomicAdd(&next_row[e], 1) : -1;
  });
}

// A token's row of x, rounded to bf16, for each of its choices.
struct SpreadRows {
  Tensor x;                        // [T, cols], cols a multiple of 4, rows at multiples of 16 bytes
  const int32_t* place = nullptr;  // [T, top_k] sorted row of a pair, or -1
  int top_k = 0;
  CudaBf16* to = nullptr;  // [pairs, cols] sorted by expert
};

// Grid: tokens.
static __global__ void __launch_bounds__(kSpreadThreads) SpreadRowsKernel(SpreadRows rows) {
  LetNextKernelBegin();
  WaitForEarlierKernels();
  const int64_t token = blockIdx.x;
  const auto* from = reinterpret_cast<const float4*>(static_cast<const float*>(rows.x.data) +
                                                     token * rows.x.stride);
  for (int64_t i = threadIdx.x; i < rows.x.cols / 4; i += kSpreadThreads) {
    const uint2 rounded = RoundedFour(from[i]);
    for (int k = 0; k < rows.top_k; ++k) {
      const int64_t row = rows.place[token * rows.top_k + k];
      if (row >= 0) reinterpret_cast<uint2*>(rows.to + row * rows.x.cols)[i] = rounded;
    }
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_EXPERTS_EXPERT_TILES_CUH_
