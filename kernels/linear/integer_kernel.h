// Products of integer codes with x rounded to integers of 8 bits, as Precision::kInt8Groups and
// kInt8Rows say, over the panels of kernels/linear/coded_kernel.h.
//
// The sum over a group is exact in integers of 32 bits, then a number of f32 is formed of it, times
// x's scale, and added, times the weights' scale, to the output's accumulator, group by group: the
// invariant of kernels/linear/linear_kernel.h, since what a row is rounded to depends on that row
// alone.
//
// Instructions multiply codes as they lie in the panel, an offset above the number they stand for;
// packed rows hold the sum of a group's integers, from which the offset's part is known, and sums
// begin with that taken off.
#ifndef TROUPE_KERNELS_LINEAR_INTEGER_KERNEL_H_
#define TROUPE_KERNELS_LINEAR_INTEGER_KERNEL_H_

#include "kernels/linear/linear_kernel.h"

namespace troupe {

// Behind the packed bytes of all rows.
// [rows, groups]
[[gnu::always_inline]] inline float* IntegerScales(const PanelView& w, const RowsView& rows) {
  return static_cast<float*>(rows.packed) + rows.rows * PaddedInputs(w) / 4;
}
// [rows, groups]
[[gnu::always_inline]] inline int32_t* IntegerSums(const PanelView& w, const RowsView& rows) {
  return reinterpret_cast<int32_t*>(IntegerScales(w, rows) + rows.rows * w.codes.groups);
}

// As PackRows and MultiplyPanels, for PanelView::integers().
TROUPE_DECLARE_VNNI_KERNEL(PackIntegerRows, const PanelView& w, const RowsView& rows,
                           int64_t tile_begin, int64_t tile_end);

TROUPE_DECLARE_VNNI_KERNEL(MultiplyIntegerPanels, const PanelView& w, const RowsView& rows,
                           const RowsOut& out, const PanelRange& range);

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_INTEGER_KERNEL_H_
