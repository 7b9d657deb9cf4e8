// How products of FP8 with FP8 are cut up on a GPU: pure functions of the shape, tested without
// one.
#ifndef TROUPE_KERNELS_LINEAR_FP8_LAYOUT_H_
#define TROUPE_KERNELS_LINEAR_FP8_LAYOUT_H_

#include <algorithm>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/linear/coded_matrix.h"
#include "kernels/linear/linear.h"

namespace troupe {

inline constexpr int kFp8Block = kFp8Inputs;  // inputs with one scale
inline constexpr int kFp8Slab = 64;           // outputs with one scale
inline constexpr int kFp8FewRows = 32;
inline constexpr int kFp8MostRows = 128;  // of x, of a tile
inline constexpr int kFp8RowsUnit = 16;

constexpr int64_t Fp8Blocks(int64_t inputs) { return (inputs + kFp8Block - 1) / kFp8Block; }

// Whether matrix units take such parts, one under another: every kFp8Slab rows have the same
// scales.
inline bool TakesFp8(absl::Span<const CodedMatrix> parts, Precision precision) {
  if (precision != Precision::kFp8Groups) return false;
  for (const CodedMatrix& part : parts) {
    if (!SuitsFp8Products(part) || part.rows % kFp8Slab != 0) return false;
    const int64_t groups = part.groups();
    for (int64_t row = 0; row < part.rows; ++row) {
      const float* scales = part.scales + row * groups;
      const float* first = part.scales + (row - row % kFp8Slab) * groups;
      if (!std::equal(scales, scales + groups, first)) return false;
    }
  }
  return true;
}

// How many rows of x a tile has, all tiles alike.
inline int ChooseFp8Rows(int64_t rows) {
  const int64_t tiles = (rows + kFp8MostRows - 1) / kFp8MostRows;
  const int64_t alike = (rows + tiles - 1) / tiles;
  return static_cast<int>((alike + kFp8RowsUnit - 1) / kFp8RowsUnit * kFp8RowsUnit);
}

// How many times 128 outputs a tile has: two bring rows of x half as often, where multiprocessors
// still have enough tiles.
inline int ChooseFp8Waves(int64_t rows, int64_t outputs, int multiprocessors) {
  const int64_t tiles =
      (rows + kFp8MostRows - 1) / kFp8MostRows * ((outputs + 2 * 128 - 1) / (2 * 128));
  return rows > kFp8FewRows && tiles >= multiprocessors ? 2 : 1;
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_FP8_LAYOUT_H_
