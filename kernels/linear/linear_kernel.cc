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

int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t RoundUpToEven(int64_t n) { return (n + 1) & ~int64_t{1}; }

// How one step along K is done: `kInputs` inputs at once, for each kind of stored weights and
// packed x. kStepElements: weights that a step of one panel covers.
struct DotBf16 {
  using W = Bf16;
  using X = Bf16;
  static constexpr int kInputs = 2;

  template <int kRows, int kVecs>
  static void Step(const W* const (&w)[kVecs], const X* x, Vec (&acc)[kRows][kVecs]) {
    PairVec weights[kVecs];
    for (int j = 0; j < kVecs; ++j) weights[j] = LoadPairs(w[j]);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const PairVec value = Set1Pair(x + 2 * r);
#pragma GCC unroll 8
      for (int j = 0; j < kVecs; ++j) acc[r][j] = DotPairs(weights[j], value, acc[r][j]);
    }
  }
};

struct WidenBf16Weights {
  using W = Bf16;
  using X = float;
  static constexpr int kInputs = 2;

  template <int kRows, int kVecs>
  static void Step(const W* const (&w)[kVecs], const X* x, Vec (&acc)[kRows][kVecs]) {
    Vec weights[kVecs];
    for (int j = 0; j < kVecs; ++j) weights[j] = Low(LoadPairs(w[j]));
    MultiplyByRows(weights, x, acc);
    for (int j = 0; j < kVecs; ++j) weights[j] = High(LoadPairs(w[j]));
    MultiplyByRows(weights, x + kRows, acc);
  }

  template <int kRows, int kVecs>
  static void MultiplyByRows(const Vec (&weights)[kVecs], const X* x, Vec (&acc)[kRows][kVecs]) {
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const Vec value = Set1(x[r]);
#pragma GCC unroll 8
      for (int j = 0; j < kVecs; ++j) acc[r][j] = Fma(weights[j], value, acc[r][j]);
    }
  }
};

struct F32Weights {
  using W = float;
  using X = float;
  static constexpr int kInputs = 1;

  template <int kRows, int kVecs>
  static void Step(const W* const (&w)[kVecs], const X* x, Vec (&acc)[kRows][kVecs]) {
    Vec weights[kVecs];
    for (int j = 0; j < kVecs; ++j) weights[j] = Load(w[j]);
    WidenBf16Weights::MultiplyByRows(weights, x, acc);
  }
};

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

// kRows rows of x with kPanels panels of weights.
template <class Kind, int kRows, int kPanels>
void MultiplyTile(const typename Kind::W* w, int64_t steps, const typename Kind::X* x,
                  const TileOut& out) {
  constexpr int kVecs = kPanels * kPanelVecs;
  constexpr int kStepElements = kPanelOutputs * Kind::kInputs;
  const int64_t panel_elements = steps * kStepElements;
  Vec acc[kRows][kVecs];
  for (int r = 0; r < kRows; ++r) {
    for (int j = 0; j < kVecs; ++j) acc[r][j] = Zero();
  }
  for (int64_t step = 0; step < steps; ++step) {
    const typename Kind::W* vecs[kVecs];
    for (int j = 0; j < kVecs; ++j) {
      vecs[j] = w + j / kPanelVecs * panel_elements + j % kPanelVecs * (kLanes * Kind::kInputs);
    }
    Kind::template Step<kRows, kVecs>(vecs, x, acc);
    w += kStepElements;
    x += kRows * Kind::kInputs;
  }
  out.Write(acc);
}

// As many panels at once as give accumulators enough to hide the latency of a product.
constexpr int PanelsAtOnce(int rows) { return rows == 1 ? 4 : rows * 4 <= kTileRows ? 2 : 1; }

template <class Kind, int kRows, int kAtOnce = PanelsAtOnce(kRows)>
void MultiplyPanelsByTile(const typename Kind::W* w, int64_t steps, int64_t panels,
                          const typename Kind::X* x, TileOut out) {
  const int64_t panel_elements = steps * kPanelOutputs * Kind::kInputs;
  for (; panels >= kAtOnce; panels -= kAtOnce) {
    MultiplyTile<Kind, kRows, kAtOnce>(w, steps, x, out);
    w += kAtOnce * panel_elements;
    out.first_col += kAtOnce * kPanelOutputs;
  }
  if constexpr (kAtOnce > 1) {
    if (panels > 0) MultiplyPanelsByTile<Kind, kRows, kAtOnce / 2>(w, steps, panels, x, out);
  }
}

template <class Kind, int kRows = kTileRows>
void MultiplyByTile(int64_t tile_rows, const typename Kind::W* w, int64_t steps, int64_t panels,
                    const typename Kind::X* x, const TileOut& out) {
  if constexpr (kRows > 0) {
    if (tile_rows == kRows) {
      MultiplyPanelsByTile<Kind, kRows>(w, steps, panels, x, out);
    } else {
      MultiplyByTile<Kind, kRows - 1>(tile_rows, w, steps, panels, x, out);
    }
  }
}

template <class Kind>
void Multiply(const PanelView& w, const RowsView& rows, const RowsOut& out,
              const PanelRange& range) {
  const int64_t steps = (w.inputs + Kind::kInputs - 1) / Kind::kInputs;
  const int64_t panel_elements = steps * kPanelOutputs * Kind::kInputs;
  const int64_t panel_bytes = panel_elements * static_cast<int64_t>(sizeof(typename Kind::W));
  const int64_t resident = kResidentBytes / panel_bytes > 1 ? kResidentBytes / panel_bytes : 1;
  const auto* weights = static_cast<const typename Kind::W*>(w.data);
  const auto* x = static_cast<const typename Kind::X*>(rows.packed);
  for (int64_t panel = range.panel_begin; panel < range.panel_end; panel += resident) {
    const int64_t panels = Min(resident, range.panel_end - panel);
    for (int64_t tile = range.tile_begin; tile < range.tile_end; ++tile) {
      const int64_t begin = rows.rows * tile / rows.tiles;
      const int64_t end = rows.rows * (tile + 1) / rows.tiles;
      MultiplyByTile<Kind>(end - begin, weights + panel * panel_elements, steps, panels,
                           x + begin * RoundUpToEven(w.inputs),
                           TileOut{&out, begin, panel * kPanelOutputs, w.outputs});
    }
  }
}

bool UsesDots(const PanelView& w) {
  return kNativeDotPairs && w.dtype == DType::kBf16 && w.precision == Precision::kBf16;
}

constexpr int kChunk = 64;

// `count` values, rounded if asked for, at `to`; zeros behind them up to kChunk.
void ConvertChunk(const float* x, int64_t count, Precision precision, float* to) {
  Bf16 rounded[kChunk];
  for (int i = 0; i < kChunk; i += kLanes) {
    const int n = static_cast<int>(count - i < 0 ? 0 : Min(count - i, kLanes));
    const Vec value = n == kLanes ? Load(x + i) : Load(x + i, n);
    Store(to + i, value);
    if (precision == Precision::kBf16) {
      Store(rounded + i, value);
      Store(to + i, Load(rounded + i));
    }
  }
}

void ConvertChunk(const float* x, int64_t count, Precision precision, Bf16* to) {
  for (int i = 0; i < kChunk; i += kLanes) {
    const int n = static_cast<int>(count - i < 0 ? 0 : Min(count - i, kLanes));
    Store(to + i, n == kLanes ? Load(x + i) : Load(x + i, n));
  }
}

// The values of row r of a tile go to [group][r][kGroup].
template <class X, int kGroup>
void PackTile(const PanelView& w, const RowsView& rows, int64_t begin, int64_t end) {
  const int64_t padded = RoundUpToEven(w.inputs);
  const int64_t count = end - begin;
  X* tile = static_cast<X*>(rows.packed) + begin * padded;
  for (int64_t r = 0; r < count; ++r) {
    const int64_t row = rows.index != nullptr ? rows.index[begin + r] : begin + r;
    const float* from = rows.x + row * rows.stride;
    for (int64_t k = 0; k < padded; k += kChunk) {
      X chunk[kChunk];
      ConvertChunk(from + k, w.inputs - k, w.precision, chunk);
      const int64_t values = Min(kChunk, padded - k);
      X* to = tile + k * count + r * kGroup;
      if (count == 1) {
        __builtin_memcpy(to, chunk, static_cast<uint64_t>(values) * sizeof(X));
        continue;
      }
      for (int64_t i = 0; i < values; i += kGroup) {
        __builtin_memcpy(to + i * count, chunk + i, kGroup * sizeof(X));
      }
    }
  }
}

}  // namespace

void PackRows(const PanelView& w, const RowsView& rows, int64_t tile_begin, int64_t tile_end) {
  for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
    const int64_t begin = rows.rows * tile / rows.tiles;
    const int64_t end = rows.rows * (tile + 1) / rows.tiles;
    if (UsesDots(w)) {
      PackTile<Bf16, 2>(w, rows, begin, end);
    } else {
      PackTile<float, 1>(w, rows, begin, end);
    }
  }
}

void MultiplyPanels(const PanelView& w, const RowsView& rows, const RowsOut& out,
                    const PanelRange& range) {
  if (UsesDots(w)) {
    Multiply<DotBf16>(w, rows, out, range);
  } else if (w.dtype == DType::kBf16) {
    Multiply<WidenBf16Weights>(w, rows, out, range);
  } else {
    Multiply<F32Weights>(w, rows, out, range);
  }
}

}  // namespace troupe::TROUPE_ISA
