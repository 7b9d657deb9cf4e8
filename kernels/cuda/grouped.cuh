// Which rows of a product meet which matrix. A dense layer has one matrix for all of its rows; a
// layer of experts has its rows sorted by expert, and tiles that lie within one expert.
#ifndef TROUPE_KERNELS_CUDA_GROUPED_CUH_
#define TROUPE_KERNELS_CUDA_GROUPED_CUH_

#include <cstdint>

namespace troupe {

// Pointers are to device memory. Without `tile_group` there is one group, `weights`, of `rows`.
struct GroupedRows {
  const void* weights = nullptr;  // row-major [outputs, inputs]
  const float* bias = nullptr;    // [outputs]; null: none
  int rows = 0;
  const void* const* group_weights = nullptr;  // [groups] likewise
  const float* const* group_bias = nullptr;    // [groups] likewise
  const int32_t* tile_group = nullptr;         // [tiles]
  const int32_t* tile_first = nullptr;         // [tiles] sorted row that a tile begins with
  const int32_t* tile_count = nullptr;         // [1] how many tiles there are
  const int32_t* group_end = nullptr;          // [groups] one past the last sorted row
  const int32_t* source = nullptr;             // row of x of a sorted row; null: the same
};

struct RowTile {
  const void* weights;
  const float* bias;  // null: none
  int first;
  int count;  // 0: nothing to do
};

// Tile `index` of at most `tile_rows` sorted rows.
__device__ __forceinline__ RowTile FindTile(const GroupedRows& rows, int index, int tile_rows) {
  if (rows.tile_group == nullptr) {
    const int first = index * tile_rows;
    return {rows.weights, rows.bias, first, min(tile_rows, max(rows.rows - first, 0))};
  }
  if (index >= *rows.tile_count) return {nullptr, nullptr, 0, 0};
  const int group = rows.tile_group[index];
  const int first = rows.tile_first[index];
  return {rows.group_weights[group], rows.group_bias[group], first,
          min(tile_rows, rows.group_end[group] - first)};
}

__device__ __forceinline__ float BiasOf(const RowTile& tile, int64_t output) {
  return tile.bias == nullptr ? 0.0F : tile.bias[output];
}

__device__ __forceinline__ int64_t SourceRow(const GroupedRows& rows, int sorted_row) {
  return rows.source == nullptr ? sorted_row : rows.source[sorted_row];
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_GROUPED_CUH_
