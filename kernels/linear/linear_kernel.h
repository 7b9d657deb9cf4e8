// The inner loops of matrix products on CPUs, which linear and moe_experts share.
//
// Weights lie in panels of kPanelVecs vectors of outputs, so that outputs sit in the lanes and K is
// walked from its beginning to its end with one accumulator an output: whatever the tile, the batch
// or the split over threads, a result is the same sum in the same order. The rows of x are packed
// in tiles, so that the values that one step broadcasts lie side by side.
#ifndef TROUPE_KERNELS_LINEAR_LINEAR_KERNEL_H_
#define TROUPE_KERNELS_LINEAR_LINEAR_KERNEL_H_

#include <cstdint>

#include "kernels/linear/coded_matrix.h"
#include "kernels/linear/linear.h"
#include "kernels/simd/dispatch.h"
#include "kernels/tensor.h"

namespace troupe {

// What lies in the panels of a matrix of codes; see kernels/linear/coded_kernel.h.
struct PanelCodes {
  CodeFormat format = CodeFormat::kInt8;
  ScaleFormat scale_format = ScaleFormat::kF32;
  bool zeros = false;
  int64_t group = 0;  // inputs
  int64_t groups = 0;
  int64_t group_bytes = 0;  // of a panel
  int64_t panel_bytes = 0;  // 0: the matrix holds plain values
};

// Weights of one matrix. With W outputs a panel, the last one filled up with zeros:
//     bf16: [panels, ceil(inputs / 2), W, 2];  f32: [panels, inputs, W]
struct PanelView {
  const void* data = nullptr;
  DType dtype = DType::kF32;  // of plain values
  Precision precision = Precision::kF32;
  int64_t outputs = 0;
  int64_t inputs = 0;
  PanelCodes codes;

  [[gnu::always_inline]] bool coded() const { return codes.panel_bytes > 0; }
  // Products by kernels/linear/integer_kernel.h.
  [[gnu::always_inline]] bool integers() const {
    return precision == Precision::kInt8Groups || precision == Precision::kInt8Rows;
  }
};

// Inputs of a packed row, zeros at its end included.
[[gnu::always_inline]] inline int64_t PaddedInputs(const PanelView& w) {
  const int64_t step = w.coded() ? 8 : 2;
  return (w.inputs + step - 1) / step * step;
}

// Rows of x, as they come and packed. Tile i of n holds the rows [rows * i / n, rows * (i + 1) /
// n); its packed values start at element first_row * PaddedInputs(w):
//     [K / 2, tile rows, 2] bf16, [K, tile rows] f32, or [K / 4, tile rows, 4] int8, as the
//     weights' kernel wants.
struct RowsView {
  const float* x = nullptr;
  int64_t stride = 0;
  const int32_t* index = nullptr;  // row r is x's row index[r]; null: r
  int64_t rows = 0;
  int64_t tiles = 0;
  void* packed = nullptr;  // PackedFloats(w, rows) * 4 bytes
};

// What packed rows take: their values and, for weights with zeros, the sums of x over the groups;
// for integers, bytes, scales and sums.
[[gnu::always_inline]] inline int64_t PackedFloats(const PanelView& w, int64_t rows) {
  if (w.integers()) return rows * (PaddedInputs(w) / 4 + 2 * w.codes.groups);
  return rows * (PaddedInputs(w) + (w.codes.zeros ? w.codes.groups : 0));
}
// [rows, groups]
[[gnu::always_inline]] inline float* GroupSums(const PanelView& w, const RowsView& rows) {
  return static_cast<float*>(rows.packed) + rows.rows * PaddedInputs(w);
}

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
