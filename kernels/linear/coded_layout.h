// How codes lie on a GPU, and how their products are cut up: pure functions of the shape, tested
// without a GPU.
//
// A tile is 16 outputs; a unit is what 32 lanes of 16 bytes hold of a tile: 64 inputs of 4 bits or
// 32 of 8. Lane l has of each step of 16 inputs what the matrix units want of it (PTX ISA,
// mma.m16n8k16, operand A): pair 0 is output l / 4, inputs 2 (l % 4) and the next; pair 1 the same
// of output l / 4 + 8; pairs 2 and 3 the same 8 inputs further. 4 bits: a word a step, pair p at
// bits 4 p and 16 + 4 p. 8 bits: two words a step, two pairs a word.
// Scales and zeros: [tiles, groups, 8, 2], the outputs o and o + 8 side by side.
//
// Inputs are summed in segments, and segments are added in order: the number of segments depends on
// the matrix alone, so that a row's bits depend on neither the other rows nor the kernel.
#ifndef TROUPE_KERNELS_LINEAR_CODED_LAYOUT_H_
#define TROUPE_KERNELS_LINEAR_CODED_LAYOUT_H_

#include <algorithm>
#include <cstdint>

#include "kernels/linear/coded_matrix.h"
#include "kernels/linear/linear.h"

namespace troupe {

inline constexpr int kCodedTileOutputs = 16;
inline constexpr int kCodedInputs = 64;       // what inputs are padded to
inline constexpr int kCodedUnitBytes = 512;   // of a tile
inline constexpr int kMostCodedSegments = 8;  // of the inputs
inline constexpr int kMostCodedWarps = 16;    // of a block that streams
inline constexpr int kCodedColumns = 8;       // rows of x in a column tile
inline constexpr int kMostCodedFewRows = 2 * kCodedColumns;
inline constexpr int64_t kCodedSharedBytes = (227 << 10) - (18 << 10);  // less partial sums

// What kernels tell apart. Scales in memory: kInt4 and kFp4 bf16, kInt4Zeros a bf16 and what is
// left of the scale as another, the others f32.
enum class CodedKind : uint8_t { kInt4, kInt4Zeros, kInt8, kFp8, kFp4 };

constexpr int UnitInputs(CodedKind kind) {
  return kind == CodedKind::kInt8 || kind == CodedKind::kFp8 ? 32 : 64;
}
constexpr bool StoresZeros(CodedKind kind) {
  return kind == CodedKind::kInt4Zeros || kind == CodedKind::kInt8;
}
// Of an output's scale.
constexpr int ScaleBytes(CodedKind kind) {
  return kind == CodedKind::kInt4 || kind == CodedKind::kFp4 ? 2 : 4;
}

struct CodedShape {
  int64_t outputs = 0;
  int64_t inputs = 0;
  int64_t group = 0;  // at most `inputs`

  int64_t tiles() const { return (outputs + kCodedTileOutputs - 1) / kCodedTileOutputs; }
  int64_t padded_inputs() const {
    return (inputs + kCodedInputs - 1) / kCodedInputs * kCodedInputs;
  }
  // With the padding, which may have a group of its own.
  int64_t groups() const { return group >= inputs ? 1 : (padded_inputs() + group - 1) / group; }
};

// Whether kernels take such codes as they are; else they are packed as numbers.
inline bool TakesCodes(const CodedShape& shape, CodeFormat format, ScaleFormat scales,
                       Precision precision) {
  if (precision != Precision::kBf16 || !HasScales(format) || shape.inputs % 8 != 0) return false;
  if (format == CodeFormat::kFp4E2M1 && scales != ScaleFormat::kE8M0 &&
      scales != ScaleFormat::kBf16) {
    return false;
  }
  // Half a unit has one scale an output.
  return shape.group >= shape.inputs ||
         (shape.group >= 32 && (shape.group & (shape.group - 1)) == 0);
}

inline CodedKind KindOf(CodeFormat format, ScaleFormat scales, bool zeros) {
  if (format == CodeFormat::kFp8E4M3) return CodedKind::kFp8;
  if (format == CodeFormat::kInt8) return CodedKind::kInt8;
  if (format == CodeFormat::kFp4E2M1) return CodedKind::kFp4;
  return zeros || scales != ScaleFormat::kBf16 ? CodedKind::kInt4Zeros : CodedKind::kInt4;
}

// Enough of them that every multiprocessor has warps to stream with, none under 1024 inputs. What
// counts as enough suits GPUs of 100 to 150 multiprocessors.
inline int SegmentsOf(const CodedShape& shape) {
  constexpr int64_t kEnoughTiles = 1536;
  constexpr int64_t kLeastInputs = 1024;
  const int64_t wanted = (kEnoughTiles + shape.tiles() - 1) / shape.tiles();
  const int64_t most = std::max<int64_t>(shape.padded_inputs() / kLeastInputs, 1);
  return static_cast<int>(std::min({wanted, most, int64_t{kMostCodedSegments}}));
}
// Of all segments but the last, which may be shorter.
inline int64_t SegmentInputs(const CodedShape& shape, int segments) {
  const int64_t steps = shape.padded_inputs() / kCodedInputs;
  return (steps + segments - 1) / segments * kCodedInputs;
}

// A row of x in shared memory: rows lie 16 bytes further apart than they are long.
inline int64_t CodedXBytes(const CodedShape& shape) { return shape.padded_inputs() * 2 + 16; }

// Few rows of x: a block of `tiles` * segments warps, each with one segment of one tile at a time.
struct CodedStreamChoice {
  int blocks = 0;  // 0: x does not fit
  int tiles = 0;
  int64_t shared_bytes = 0;  // for x
};

inline CodedStreamChoice ChooseCodedStream(const CodedShape& shape, int segments, int64_t rows,
                                           int multiprocessors) {
  CodedStreamChoice choice;
  choice.shared_bytes = rows * CodedXBytes(shape);
  if (rows > kMostCodedFewRows || choice.shared_bytes > kCodedSharedBytes) return {};
  const int64_t share = (shape.tiles() + multiprocessors - 1) / multiprocessors;
  choice.tiles = static_cast<int>(std::min<int64_t>(kMostCodedWarps / segments, share));
  choice.blocks = static_cast<int>(
      std::min<int64_t>(multiprocessors, (shape.tiles() + choice.tiles - 1) / choice.tiles));
  return choice;
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_CODED_LAYOUT_H_
