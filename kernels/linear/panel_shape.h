// Sizes of the panels and tiles of kernels/linear/linear_kernel.h.
#ifndef TROUPE_KERNELS_LINEAR_PANEL_SHAPE_H_
#define TROUPE_KERNELS_LINEAR_PANEL_SHAPE_H_

#include "kernels/simd/dispatch.h"

namespace troupe {

inline constexpr int kPanelVecs = 2;

struct PanelShape {
  int outputs;    // of one panel
  int tile_rows;  // most rows of x at once
};

[[gnu::always_inline]] constexpr PanelShape PanelShapeOf(int max_tile_vecs, int lanes) {
  return PanelShape{kPanelVecs * lanes, max_tile_vecs / kPanelVecs};
}

[[gnu::always_inline]] constexpr PanelShape PanelShapeOf(CpuIsa isa) {
  return static_cast<int>(isa) == 0 ? PanelShapeOf(12, 8) : PanelShapeOf(24, 16);
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_PANEL_SHAPE_H_
