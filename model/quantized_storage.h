// Matrices whose elements are codes of a few bits that share scales: how the formats of published
// checkpoints lay them down, and what each element stands for.
//
// Thread model: immutable plain values; any thread may read.
// Ownership: borrows the bytes of the checkpoint's tensors.
// Invariants: whoever makes one has checked that the tensors have the sizes that it implies; see
// model/quantization.h.
#ifndef TROUPE_MODEL_QUANTIZED_STORAGE_H_
#define TROUPE_MODEL_QUANTIZED_STORAGE_H_

#include <cstdint>

#include "absl/types/span.h"
#include "model/safetensors.h"

namespace troupe {

// Unsigned integers of 4 or 8 bits in little-endian words of 32 bits. The tensor is [I, J / n] when
// the n integers of a word are neighbours along J, else [I / n, J].
struct PackedInts {
  TensorView tensor;
  int bits = 4;
  bool along_first = false;
  // AutoAWQ's order: bit fields 0, 1, 2, ... of a word are the elements 0, 2, 4, 6, 1, 3, 5, 7.
  bool interleaved = false;
  // For bytes in two's complement: turns them to excess 2^(bits - 1).
  uint8_t flip = 0;

  bool empty() const { return tensor.empty(); }
  uint32_t At(int64_t i, int64_t j) const;
};

// Integers in groups along the inputs: value(r, c) = (code(r, c) - zero(r, g)) * scale(r, g). GPTQ
// and AWQ store all three transposed, inputs first; compressed-tensors stores them as they are.
struct GroupedStorage {
  PackedInts codes;
  PackedInts zeros;        // empty: 2^(bits - 1) everywhere
  TensorView scales;       // [rows, groups], or [groups, rows]; F32, BF16 or F16
  TensorView group_of;     // [cols] I32, the group of each column; empty: col / group_size
  int64_t group_size = 0;  // columns
  int64_t groups = 0;
  bool transposed = false;
  // Added to stored zeros, modulo 2^bits: AutoGPTQ's first format stores zero - 1.
  uint32_t zero_bias = 0;

  uint32_t Code(int64_t row, int64_t col) const;
  uint32_t Zero(int64_t row, int64_t group) const;
  float Scale(int64_t row, int64_t group) const;
  int64_t Group(int64_t col) const;
  // Whether each column c of [first, first + count) belongs to group c / group_size.
  bool GroupsAreNeighbours(int64_t first, int64_t count) const;
};

// F8_E4M3 values with a scale for each block of rows and columns; blocks at the edges are cut off.
struct Fp8Storage {
  TensorView codes;        // [rows, cols]
  TensorView scales;       // [ceil(rows / block_rows), ceil(cols / block_cols)]
  int64_t block_rows = 0;  // a per-channel scale has blocks of one row, a per-tensor one a single
  int64_t block_cols = 0;  // block

  float Scale(int64_t row, int64_t col) const;
  const std::byte* RowCodes(int64_t row) const;
};

// E2M1 values, two a byte with the first in the low bits, in groups of 32 with an E8M0 scale each
// (OCP Microscaling Formats 1.0). Row r of the matrix is row first_row + r * row_step of a tensor
// that may hold many matrices.
struct Mxfp4Storage {
  static constexpr int64_t kGroup = 32;

  TensorView blocks;  // U8 [.., cols / 32, 16]
  TensorView scales;  // U8 [.., cols / 32]
  int64_t first_row = 0;
  int64_t row_step = 1;

  int64_t cols() const;
  const std::byte* RowCodes(int64_t row) const;
  const std::byte* RowScales(int64_t row) const;
};

// Columns [first_col, first_col + out.size()) of row `row`.
void ReadRow(const GroupedStorage& storage, int64_t row, int64_t first_col, absl::Span<float> out);
void ReadRow(const Fp8Storage& storage, int64_t row, int64_t first_col, absl::Span<float> out);
void ReadRow(const Mxfp4Storage& storage, int64_t row, int64_t first_col, absl::Span<float> out);

}  // namespace troupe

#endif  // TROUPE_MODEL_QUANTIZED_STORAGE_H_
