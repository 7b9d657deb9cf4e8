// Sorts a step's (token, choice) pairs by expert and cuts each expert's into tiles: one block.
//
// The order inside an expert is whatever the hardware makes of it: no row's result depends on its
// place, and sums over a token's experts are formed in the order of its choices.
#ifndef TROUPE_KERNELS_MOE_EXPERTS_EXPERT_ROWS_CUH_
#define TROUPE_KERNELS_MOE_EXPERTS_EXPERT_ROWS_CUH_

#include <cuda_runtime.h>

#include <cstdint>

namespace troupe {

inline constexpr int kExpertRowsThreads = 1024;

// Pointers are to device memory.
struct ExpertRows {
  const int32_t* chosen = nullptr;  // [pairs], pair = token * top_k + choice; negative: none
  int pairs = 0;
  int top_k = 0;
  int experts = 0;
  int rows_a_tile = 0;
  int32_t* end = nullptr;         // [experts] out: one past the expert's last sorted row
  int32_t* tile_group = nullptr;  // out: the expert of each tile
  int32_t* tile_first = nullptr;  // out: its first sorted row
  int32_t* tile_count = nullptr;  // [1] out
  int32_t* source = nullptr;      // [pairs] out: token of a sorted row
  int32_t* place = nullptr;       // [pairs] out: sorted row of a pair, or -1
};

// Dynamic shared memory: one number an expert.
static __global__ void __launch_bounds__(kExpertRowsThreads) SortByExpertKernel(ExpertRows rows) {
  extern __shared__ int32_t next[];  // pairs of an expert, then its next free row
  for (int e = static_cast<int>(threadIdx.x); e < rows.experts; e += kExpertRowsThreads) {
    next[e] = 0;
  }
  __syncthreads();
  for (int pair = static_cast<int>(threadIdx.x); pair < rows.pairs; pair += kExpertRowsThreads) {
    if (rows.chosen[pair] >= 0) atomicAdd(&next[rows.chosen[pair]], 1);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    int first = 0;
    int tiles = 0;
    for (int e = 0; e < rows.experts; ++e) {
      const int count = next[e];
      for (int row = 0; row < count; row += rows.rows_a_tile) {
        rows.tile_group[tiles] = e;
        rows.tile_first[tiles++] = first + row;
      }
      next[e] = first;
      first += count;
      rows.end[e] = first;
    }
    *rows.tile_count = tiles;
  }
  __syncthreads();
  for (int pair = static_cast<int>(threadIdx.x); pair < rows.pairs; pair += kExpertRowsThreads) {
    rows.place[pair] = -1;
    if (rows.chosen[pair] < 0) continue;
    const int row = atomicAdd(&next[rows.chosen[pair]], 1);
    rows.source[row] = pair / rows.top_k;
    rows.place[pair] = row;
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_EXPERTS_EXPERT_ROWS_CUH_
