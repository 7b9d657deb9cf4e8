// How a matrix in panels meets a tile of rows: what all kinds of weights share. For *_kernel.cc of
// kernels/linear alone.
//
// A Kind says what one panel looks like:
//   Kind::X                  what x is packed as
//   panel_bytes()
//   Accumulate<kRows, kVecs>(w, x, first_row, acc)
//                            adds to acc the products of kRows rows, packed at x, with the
//                            kVecs / kPanelVecs panels that begin at w
#ifndef TROUPE_KERNELS_LINEAR_PANEL_TILE_H_
#define TROUPE_KERNELS_LINEAR_PANEL_TILE_H_

#include "kernels/linear/linear_kernel.h"
#include "kernels/linear/panel_shape.h"
#include "kernels/simd/simd.h"

namespace troupe::TROUPE_ISA {
namespace {

constexpr int kTileRows = kMaxTileVecs / kPanelVecs;
constexpr int kPanelOutputs = kPanelVecs * kLanes;
constexpr PanelShape kShape = PanelShapeOf(kMaxTileVecs, kLanes);
static_assert(kShape.outputs == kPanelOutputs && kShape.tile_rows == kTileRows);

// Weights that the loop over tiles walks again and again: they, and a tile of x, fit a level-2
// cache.
constexpr int64_t kResidentBytes = 512 * 1024;

inline int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }

// acc[r][j] += weights[j] * x[r]
template <int kRows, int kVecs>
void MultiplyByRows(const Vec (&weights)[kVecs], const float* x, Vec (&acc)[kRows][kVecs]) {
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
    const Vec value = Set1(x[r]);
#pragma GCC unroll 8
    for (int j = 0; j < kVecs; ++j) acc[r][j] = Fma(weights[j], value, acc[r][j]);
  }
}

// acc[r][j] += weights[j].low * x[r].low + weights[j].high * x[r].high
template <int kRows, int kVecs>
void MultiplyPairs(const PairVec (&weights)[kVecs], const Bf16* x, Vec (&acc)[kRows][kVecs]) {
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
    const PairVec value = Set1Pair(x + 2 * r);
#pragma GCC unroll 8
    for (int j = 0; j < kVecs; ++j) acc[r][j] = DotPairs(weights[j], value, acc[r][j]);
  }
}

// The same with x in f32, all rows' first values before their second ones.
template <int kRows, int kVecs>
void MultiplyPairs(const PairVec (&pairs)[kVecs], const float* x, Vec (&acc)[kRows][kVecs]) {
  Vec weights[kVecs];
  for (int j = 0; j < kVecs; ++j) weights[j] = Low(pairs[j]);
  MultiplyByRows(weights, x, acc);
  for (int j = 0; j < kVecs; ++j) weights[j] = High(pairs[j]);
  MultiplyByRows(weights, x + kRows, acc);
}

template <int kRows, int kVecs>
void Clear(Vec (&acc)[kRows][kVecs]) {
  for (int r = 0; r < kRows; ++r) {
    for (int j = 0; j < kVecs; ++j) acc[r][j] = Zero();
  }
}

struct TileOut {
  const RowsOut* out;
  int64_t first_row;
  int64_t first_col;
  int64_t cols;  // of the matrix

  template <int kRows, int kVecs>
  void Write(Vec (&acc)[kRows][kVecs]) const {
    if (out->bias != nullptr) AddBias(acc);
    for (int r = 0; r < kRows; ++r) {
      const int64_t row = first_row + r;
      float* to = out->out + (out->index != nullptr ? out->index[row] : row) * out->stride;
      const Vec scale = Set1(out->scale != nullptr ? out->scale[row] : 1.0f);
      for (int j = 0; j < kVecs; ++j) {
        const int64_t col = first_col + j * kLanes;
        if (col + kLanes <= cols) {
          Store(to + col, Fma(scale, acc[r][j], out->accumulate ? Load(to + col) : Zero()));
        } else if (col < cols) {
          const int n = static_cast<int>(cols - col);
          Store(to + col, Fma(scale, acc[r][j], out->accumulate ? Load(to + col, n) : Zero()), n);
        }
      }
    }
  }

  template <int kRows, int kVecs>
  void AddBias(Vec (&acc)[kRows][kVecs]) const {
    for (int j = 0; j < kVecs; ++j) {
      const int64_t col = first_col + j * kLanes;
      if (col >= cols) break;
      const Vec bias = col + kLanes <= cols ? Load(out->bias + col)
                                            : Load(out->bias + col, static_cast<int>(cols - col));
      for (int r = 0; r < kRows; ++r) acc[r][j] = acc[r][j] + bias;
    }
  }
};

// Weights in plain elements: `Step` multiplies Step::kInputs inputs at once.
template <class Step>
class PlainKind {
 public:
  using X = typename Step::X;
  using W = typename Step::W;

  explicit PlainKind(int64_t inputs) : steps_((inputs + Step::kInputs - 1) / Step::kInputs) {}

  int64_t panel_bytes() const { return PanelElements() * static_cast<int64_t>(sizeof(W)); }

  template <int kRows, int kVecs>
  void Accumulate(const std::byte* panels, const X* x, int64_t /*first_row*/,
                  Vec (&acc)[kRows][kVecs]) const {
    const W* w = reinterpret_cast<const W*>(panels);
    for (int64_t step = 0; step < steps_; ++step) {
      const W* vecs[kVecs];
      for (int j = 0; j < kVecs; ++j) {
        vecs[j] = w + j / kPanelVecs * PanelElements() + j % kPanelVecs * (kLanes * Step::kInputs);
      }
      Step::template Multiply<kRows, kVecs>(vecs, x, acc);
      w += kPanelOutputs * Step::kInputs;
      x += kRows * Step::kInputs;
    }
  }

 private:
  int64_t PanelElements() const { return steps_ * kPanelOutputs * Step::kInputs; }

  int64_t steps_;
};

// As many panels at once as give accumulators enough to hide the latency of a product.
constexpr int PanelsAtOnce(int rows) { return rows == 1 ? 4 : rows * 4 <= kTileRows ? 2 : 1; }

template <int kRows, class Kind, int kAtOnce = PanelsAtOnce(kRows)>
void MultiplyPanelsByTile(const Kind& kind, const std::byte* w, int64_t panels,
                          const typename Kind::X* x, TileOut out) {
  for (; panels >= kAtOnce; panels -= kAtOnce) {
    Vec acc[kRows][kAtOnce * kPanelVecs];
    Clear(acc);
    kind.template Accumulate<kRows, kAtOnce * kPanelVecs>(w, x, out.first_row, acc);
    out.Write(acc);
    w += kAtOnce * kind.panel_bytes();
    out.first_col += kAtOnce * kPanelOutputs;
  }
  if constexpr (kAtOnce > 1) {
    if (panels > 0) MultiplyPanelsByTile<kRows, Kind, kAtOnce / 2>(kind, w, panels, x, out);
  }
}

template <class Kind, int kRows = kTileRows>
void MultiplyByTile(const Kind& kind, int64_t tile_rows, const std::byte* w, int64_t panels,
                    const typename Kind::X* x, const TileOut& out) {
  if constexpr (kRows > 0) {
    if (tile_rows == kRows) {
      MultiplyPanelsByTile<kRows>(kind, w, panels, x, out);
    } else {
      MultiplyByTile<Kind, kRows - 1>(kind, tile_rows, w, panels, x, out);
    }
  }
}

template <class Kind>
void Multiply(const Kind& kind, const PanelView& w, const RowsView& rows, const RowsOut& out,
              const PanelRange& range) {
  const int64_t resident =
      kResidentBytes / kind.panel_bytes() > 1 ? kResidentBytes / kind.panel_bytes() : 1;
  const auto* weights = static_cast<const std::byte*>(w.data);
  const auto* x = static_cast<const typename Kind::X*>(rows.packed);
  for (int64_t panel = range.panel_begin; panel < range.panel_end; panel += resident) {
    const int64_t panels = Min(resident, range.panel_end - panel);
    for (int64_t tile = range.tile_begin; tile < range.tile_end; ++tile) {
      const int64_t begin = rows.rows * tile / rows.tiles;
      const int64_t end = rows.rows * (tile + 1) / rows.tiles;
      MultiplyByTile(kind, end - begin, weights + panel * kind.panel_bytes(), panels,
                     x + begin * PaddedInputs(w),
                     TileOut{&out, begin, panel * kPanelOutputs, w.outputs});
    }
  }
}

}  // namespace
}  // namespace troupe::TROUPE_ISA

#endif  // TROUPE_KERNELS_LINEAR_PANEL_TILE_H_
