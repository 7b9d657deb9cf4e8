#include "kernels/linear/integer_kernel.h"

#include "kernels/linear/panel_scales.h"
#include "kernels/linear/panel_tile.h"
#include "kernels/simd/integers.h"
#include "kernels/simd/simd.h"

namespace troupe::TROUPE_ISA {
namespace {

// ---- Rounding x ----

struct Rounding {
  float scale = 0.0F;
  float inverse = 0.0F;
};

Rounding RoundingOf(const float* x, int64_t count) {
  Vec largest = Zero();
  Vec invalid = Zero();  // NaN where x has a NaN or an infinity
  for (int64_t k = 0; k < count; k += kLanes) {
    const Vec value = count - k >= kLanes ? Load(x + k) : Load(x + k, static_cast<int>(count - k));
    largest = Max(largest, Max(value, Zero() - value));
    invalid = invalid + (value - value);
  }
  const float range = ReduceMax(largest);
  const float zero_or_nan = Sum(invalid);
  if (range < kLeastIntegerRange) return {zero_or_nan, 0.0F};
  return {range / 127.0F + zero_or_nan, 127.0F / range};
}

constexpr int kChunk = 64;

// `count` values, then zeros up to `padded`, to [padded / 4][tile_rows][4] from `to` on; their sum.
template <bool kForNibbles>
int32_t RoundGroup(const float* x, int64_t count, int64_t padded, float inverse, int64_t tile_rows,
                   int8_t* to) {
  Vec sum = Zero();
  for (int64_t k = 0; k < padded; k += kChunk) {
    int8_t chunk[kChunk];
    const int64_t values = Min(kChunk, padded - k);
    for (int64_t i = 0; i < values; i += kLanes) {
      const int64_t left = count - k - i;
      const Vec value =
          left >= kLanes ? Load(x + k + i) : Load(x + k + i, static_cast<int>(left < 0 ? 0 : left));
      const Vec whole = RoundToInteger(value * Set1(inverse));
      sum = sum + whole;  // exact: under 2^24
      StoreBytes<kForNibbles>(chunk + i, whole);
    }
    int8_t* words = to + k * tile_rows;
    if (tile_rows == 1) {
      __builtin_memcpy(words, chunk, static_cast<uint64_t>(values));
      continue;
    }
    for (int64_t i = 0; i < values; i += 4) {
      __builtin_memcpy(words + i * tile_rows, chunk + i, 4);
    }
  }
  const float total = Sum(sum);
  return total == total ? static_cast<int32_t>(total) : 0;  // with NaN the scale is NaN as well
}

template <bool kForNibbles>
void PackTile(const PanelView& w, const RowsView& rows, int64_t begin, int64_t end) {
  const int64_t padded = PaddedInputs(w);
  const int64_t groups = w.codes.groups;
  const int64_t count = end - begin;
  int8_t* tile = static_cast<int8_t*>(rows.packed) + begin * padded;
  for (int64_t r = 0; r < count; ++r) {
    const float* x =
        rows.x + (rows.index != nullptr ? rows.index[begin + r] : begin + r) * rows.stride;
    float* scales = IntegerScales(w, rows) + (begin + r) * groups;
    int32_t* sums = IntegerSums(w, rows) + (begin + r) * groups;
    const bool by_row = w.precision == Precision::kInt8Rows;
    Rounding rounding;
    if (by_row) rounding = RoundingOf(x, w.inputs);
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t first = g * w.codes.group;
      const int64_t inputs = Min(w.codes.group, w.inputs - first);
      if (!by_row) rounding = RoundingOf(x + first, inputs);
      scales[g] = rounding.scale;
      sums[g] = RoundGroup<kForNibbles>(x + first, inputs, Min(w.codes.group, padded - first),
                                        rounding.inverse, count, tile + first * count + r * 4);
    }
  }
}

// ---- Products ----

// Of kRows rows in a tile of kTile, whose first word is at `x`.
struct Nibbles {
  static constexpr int kInputs = 8;
  static constexpr int kOffset = 8;

  template <int kTile, int kRows, int kVecs>
  static void Multiply(const CodeVec (&codes)[kVecs], const int8_t* x,
                       IntVec (&acc)[kRows][kVecs]) {
    CodeVec low[kVecs];
    CodeVec high[kVecs];
    for (int j = 0; j < kVecs; ++j) low[j] = LowNibbles(codes[j]);
    for (int j = 0; j < kVecs; ++j) high[j] = HighNibbles(codes[j]);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const CodeVec x_low = Set1Word(x + 4 * r);
      const CodeVec x_high = Set1Word(x + 4 * (kTile + r));
#pragma GCC unroll 8
      for (int j = 0; j < kVecs; ++j) {
        acc[r][j] = DotNibbles(low[j], high[j], x_low, x_high, acc[r][j]);
      }
    }
  }
};

struct Bytes {
  static constexpr int kInputs = 4;
  static constexpr int kOffset = kByteOffset;

  template <int kTile, int kRows, int kVecs>
  static void Multiply(const CodeVec (&codes)[kVecs], const int8_t* x,
                       IntVec (&acc)[kRows][kVecs]) {
    CodeVec offset[kVecs];
    for (int j = 0; j < kVecs; ++j) offset[j] = OffsetBytes(codes[j]);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const CodeVec value = Set1Word(x + 4 * r);
#pragma GCC unroll 8
      for (int j = 0; j < kVecs; ++j) acc[r][j] = DotBytes(offset[j], value, acc[r][j]);
    }
  }
};

template <class Codes>
class IntegerKind {
 public:
  using X = int8_t;

  IntegerKind(const PanelView& w, const RowsView& rows)
      : view_(w.codes),
        steps_((PaddedInputs(w) + Codes::kInputs - 1) / Codes::kInputs),
        group_steps_((w.codes.group + Codes::kInputs - 1) / Codes::kInputs),
        scale_vec_bytes_(ScaleVecBytes(w.codes.scale_format)),
        x_scales_(IntegerScales(w, rows)),
        x_sums_(IntegerSums(w, rows)) {}

  int64_t panel_bytes() const { return view_.panel_bytes; }

  template <int kRows, int kVecs>
  void Accumulate(const std::byte* w, const int8_t* x, int64_t first_row,
                  Vec (&acc)[kRows][kVecs]) const {
    // A group's sums beside those of all groups: as many rows at once as registers hold both of.
    constexpr int kAtOnce =
        kRows * kVecs * 2 <= kMaxTileVecs || kRows == 1 ? kRows : (kRows + 1) / 2;
    AccumulateRows<kRows, 0, kAtOnce>(w, x, first_row, acc);
    if constexpr (kAtOnce < kRows) {
      AccumulateRows<kRows, kAtOnce, kRows - kAtOnce>(w, x, first_row, acc);
    }
  }

 private:
  int64_t PanelOffset(int vec) const { return vec / kPanelVecs * view_.panel_bytes; }

  // Rows [kFirst, kFirst + kRows) of a tile of kTile rows.
  template <int kTile, int kFirst, int kRows, int kVecs>
  void AccumulateRows(const std::byte* w, const int8_t* x, int64_t first_row,
                      Vec (&tile_acc)[kTile][kVecs]) const {
    x += 4 * kFirst;
    first_row += kFirst;
    Vec acc[kRows][kVecs];
    Clear(acc);
    for (int64_t group = 0; group < view_.groups; ++group, w += view_.group_bytes) {
      const int64_t steps = Min(group_steps_, steps_ - group * group_steps_);
      const int64_t at_row = first_row * view_.groups + group;
      IntVec part[kRows][kVecs];
      for (int r = 0; r < kRows; ++r) {
        const IntVec begin = Set1Int(-Codes::kOffset * x_sums_[at_row + r * view_.groups]);
        for (int j = 0; j < kVecs; ++j) part[r][j] = begin;
      }
      const std::byte* at = w;
      for (int64_t step = 0; step < steps; ++step) {
        CodeVec codes[kVecs];
        for (int j = 0; j < kVecs; ++j) {
          codes[j] = LoadCodes(at + PanelOffset(j) + j % kPanelVecs * (kLanes * 4));
        }
        Codes::template Multiply<kTile>(codes, x, part);
        at += kPanelOutputs * 4;
        x += kTile * Codes::kInputs;
      }
      AddGroup(at, at_row, part, acc);
    }
    for (int r = 0; r < kRows; ++r) {
      for (int j = 0; j < kVecs; ++j) tile_acc[kFirst + r][j] = tile_acc[kFirst + r][j] + acc[r][j];
    }
  }

  // `scales` points behind the codes of a group.
  template <int kRows, int kVecs>
  void AddGroup(const std::byte* scales, int64_t at_row, const IntVec (&part)[kRows][kVecs],
                Vec (&acc)[kRows][kVecs]) const {
    const std::byte* zeros = scales + kPanelVecs * scale_vec_bytes_;
    for (int j = 0; j < kVecs; ++j) {
      const Vec scale = LoadScales(scales + PanelOffset(j) + j % kPanelVecs * scale_vec_bytes_,
                                   view_.scale_format);
      const Vec zero =
          view_.zeros ? Zero() - LoadSignedBytes(zeros + PanelOffset(j) + j % kPanelVecs * kLanes)
                      : Zero();
      for (int r = 0; r < kRows; ++r) {
        const int64_t at = at_row + r * view_.groups;
        Vec sum = ToFloats(part[r][j]);
        if (view_.zeros) sum = Fma(zero, Set1(static_cast<float>(x_sums_[at])), sum);
        acc[r][j] = Fma(scale, sum * Set1(x_scales_[at]), acc[r][j]);
      }
    }
  }

  const PanelCodes& view_;
  int64_t steps_;
  int64_t group_steps_;
  int64_t scale_vec_bytes_;
  const float* x_scales_;
  const int32_t* x_sums_;
};

}  // namespace

void PackIntegerRows(const PanelView& w, const RowsView& rows, int64_t tile_begin,
                     int64_t tile_end) {
  for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
    const int64_t begin = rows.rows * tile / rows.tiles;
    const int64_t end = rows.rows * (tile + 1) / rows.tiles;
    if (w.codes.format == CodeFormat::kInt4) {
      PackTile<true>(w, rows, begin, end);
    } else {
      PackTile<false>(w, rows, begin, end);
    }
  }
}

void MultiplyIntegerPanels(const PanelView& w, const RowsView& rows, const RowsOut& out,
                           const PanelRange& range) {
  if (w.codes.format == CodeFormat::kInt4) {
    Multiply(IntegerKind<Nibbles>(w, rows), w, rows, out, range);
  } else {
    Multiply(IntegerKind<Bytes>(w, rows), w, rows, out, range);
  }
}

}  // namespace troupe::TROUPE_ISA
