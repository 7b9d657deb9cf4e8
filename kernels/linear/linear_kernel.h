// The inner loops of matrix products on CPUs, which linear and moe_experts share.
//
// Weights lie in panels of kPanelVecs vectors of outputs, so that outputs sit in the lanes and K is
// walked from its beginning to its end with one accumulator an output: whatever the tile, the batch
// or the split over threads, a result is the same sum in the same order. The rows of x are packed
// in tiles, so that the values that one step broadcasts lie side by side.
#ifndef TROUPE_KERNELS_LINEAR_LINEAR_KERNEL_H_
#define TROUPE_KERNELS_LINEAR_LINEAR_KERNEL_H_

#include <cstdint>

#include "kernels/linear/linear.h"
#include "kernels/simd/dispatch.h"
#include "kernels/tensor.h"

namespace troupe {

// Weights of one matrix. With W outputs a panel, the last one filled up with zeros:
//     bf16: [panels, ceil(inputs / 2), W, 2];  f32: [panels, inputs, W]
struct PanelView {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  Precision precision = Precision::kF32;
  int64_t outputs = 0;
  int64_t inputs = 0;
};

// Rows of x, as they come and packed. Tile i of n holds the rows [rows * i / n, rows * (i + 1) /
// n); its packed values start at element first_row * inputs, rounded up to even inputs:
//     [K / 2, tile rows, 2] bf16, or [K, tile rows] f32, as the weights' kernel wants.
struct RowsView {
  const float* x = nullptr;
  int64_t stride = 0;
  const int32_t* index = nullptr;  // row r is x's row index[r]; null: r
  int64_t rows = 0;
  int64_t tiles = 0;
  void* packed = nullptr;  // rows * (inputs rounded up to even) * 4 bytes
};

// out[index[r], :] = (accumulate ? out : 0) + scale[r] * (W x[r] + bias)
struct RowsOut {
  float* out = nullptr;
  int64_t stride = 0;
  const int32_t* index = nullptr;  // null: r
  const float* scale = nullptr;    // null: 1
  bool accumulate = false;
  const float* bias = nullptr;  // [outputs]; null: 0
};

struct PanelRange {
  int64_t panel_begin = 0;
  int64_t panel_end = 0;
  int64_t tile_begin = 0;
  int64_t tile_end = 0;
};

TROUPE_DECLARE_KERNEL(PackRows, const PanelView& w, const RowsView& rows, int64_t tile_begin,
                      int64_t tile_end);

TROUPE_DECLARE_KERNEL(MultiplyPanels, const PanelView& w, const RowsView& rows, const RowsOut& out,
                      const PanelRange& range);

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_LINEAR_KERNEL_H_
