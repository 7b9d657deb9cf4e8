#include "kernels/linear/linear_kernel.h"

#include "kernels/linear/coded_kernel.h"
#include "kernels/linear/panel_tile.h"
#include "kernels/simd/simd.h"

namespace troupe::TROUPE_ISA {
namespace {

// How one step along K is done, for each kind of plain weights and packed x.
template <class PackedX>
struct Bf16Weights {
  using W = Bf16;
  using X = PackedX;
  static constexpr int kInputs = 2;

  template <int kRows, int kVecs>
  static void Multiply(const W* const (&w)[kVecs], const X* x, Vec (&acc)[kRows][kVecs]) {
    PairVec weights[kVecs];
    for (int j = 0; j < kVecs; ++j) weights[j] = LoadPairs(w[j]);
    MultiplyPairs(weights, x, acc);
  }
};

struct F32Weights {
  using W = float;
  using X = float;
  static constexpr int kInputs = 1;

  template <int kRows, int kVecs>
  static void Multiply(const W* const (&w)[kVecs], const X* x, Vec (&acc)[kRows][kVecs]) {
    Vec weights[kVecs];
    for (int j = 0; j < kVecs; ++j) weights[j] = Load(w[j]);
    MultiplyByRows(weights, x, acc);
  }
};

bool UsesDots(const PanelView& w) {
  return kNativeDotPairs && w.precision == Precision::kBf16 &&
         (w.coded() ? w.codes.format != CodeFormat::kF16 : w.dtype == DType::kBf16);
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

// The nearest number of e4m3, ties to even, of one that is not beyond the largest: a sum with a
// number whose last place is theirs.
float NearestE4M3(float value) {
  constexpr uint32_t kLeastExponent = 127 - 6;  // of normal numbers
  const uint32_t exponent = __builtin_bit_cast(uint32_t, value) >> 23 & 0xff;
  const uint32_t kept = exponent < kLeastExponent ? kLeastExponent : exponent;
  const float large = __builtin_bit_cast(float, (kept + 20) << 23 | 1U << 22);
  return (value + large) - large;
}

// A group of Precision::kFp8Groups: what products see of it, at `to`, with zeros behind.
void ConvertFp8Group(const float* x, int64_t count, float* to) {
  for (int64_t i = 0; i < kFp8Inputs; i += kChunk) {
    ConvertChunk(x + i, count - i, Precision::kBf16, to + i);
  }
  float range = 0.0F;
  bool finite = true;
  for (int64_t i = 0; i < kFp8Inputs; ++i) {
    const float size = __builtin_fabsf(to[i]);
    range = size > range ? size : range;
    finite = finite && size <= __FLT_MAX__;
  }
  const float inverse = range < kLeastIntegerRange ? 0.0F : kMostFp8 / range;
  const float scale = finite ? range / kMostFp8 : __builtin_nanf("");
  for (int64_t i = 0; i < kFp8Inputs; ++i) to[i] = NearestE4M3(to[i] * inverse) * scale;
}

// The values of row r of a tile go to [group][r][kGroup].
template <class X, int kGroup>
void PackTile(const PanelView& w, const RowsView& rows, int64_t begin, int64_t end) {
  const int64_t padded = PaddedInputs(w);
  const int64_t count = end - begin;
  X* tile = static_cast<X*>(rows.packed) + begin * padded;
  for (int64_t r = 0; r < count; ++r) {
    const int64_t row = rows.index != nullptr ? rows.index[begin + r] : begin + r;
    const float* from = rows.x + row * rows.stride;
    float fp8[kFp8Inputs];
    for (int64_t k = 0; k < padded; k += kChunk) {
      X chunk[kChunk];
      if (w.precision == Precision::kFp8Groups) {
        if (k % kFp8Inputs == 0) ConvertFp8Group(from + k, w.inputs - k, fp8);
        ConvertChunk(fp8 + k % kFp8Inputs, kChunk, Precision::kF32, chunk);
      } else {
        ConvertChunk(from + k, w.inputs - k, w.precision, chunk);
      }
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

// The sum of a group's values of x, as products see them: what a zero is multiplied by.
float GroupSum(const float* x, int64_t count, Precision precision) {
  Vec sum = Zero();
  for (int64_t k = 0; k < count; k += kChunk) {
    float chunk[kChunk];
    ConvertChunk(x + k, count - k, precision, chunk);
    for (int i = 0; i < kChunk; i += kLanes) sum = sum + Load(chunk + i);
  }
  return Sum(sum);
}

void SumGroups(const PanelView& w, const RowsView& rows, int64_t begin, int64_t end) {
  float* sums = GroupSums(w, rows);
  for (int64_t r = begin; r < end; ++r) {
    const float* x = rows.x + (rows.index != nullptr ? rows.index[r] : r) * rows.stride;
    for (int64_t g = 0; g < w.codes.groups; ++g) {
      const int64_t first = g * w.codes.group;
      sums[r * w.codes.groups + g] =
          GroupSum(x + first, Min(w.codes.group, w.inputs - first), w.precision);
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
    if (w.codes.zeros) SumGroups(w, rows, begin, end);
  }
}

void MultiplyPanels(const PanelView& w, const RowsView& rows, const RowsOut& out,
                    const PanelRange& range) {
  if (w.coded()) {
    MultiplyCodedPanels(w, UsesDots(w), rows, out, range);
  } else if (UsesDots(w)) {
    Multiply(PlainKind<Bf16Weights<Bf16>>(w.inputs), w, rows, out, range);
  } else if (w.dtype == DType::kBf16) {
    Multiply(PlainKind<Bf16Weights<float>>(w.inputs), w, rows, out, range);
  } else {
    Multiply(PlainKind<F32Weights>(w.inputs), w, rows, out, range);
  }
}

}  // namespace troupe::TROUPE_ISA
