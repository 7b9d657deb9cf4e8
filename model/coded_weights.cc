#include "model/coded_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace troupe {
namespace {

ScaleFormat ScaleFormatOf(const TensorView& scales) {
  if (scales.dtype == StoredDType::kBF16) return ScaleFormat::kBf16;
  if (scales.dtype == StoredDType::kF16) return ScaleFormat::kF16;
  return ScaleFormat::kF32;
}

bool GroupsSuitKernels(int64_t group, int64_t cols) { return group % 8 == 0 || group >= cols; }

// The largest groups of the matrix's own columns that each lie in one stored group of `stored`
// columns: a part may begin inside one.
int64_t GroupWithin(const MatrixView& matrix, int64_t stored) {
  if (matrix.first_col % stored == 0) return stored;
  const int64_t last_col = matrix.first_col + matrix.cols - 1;
  if (matrix.first_col / stored == last_col / stored) return matrix.cols;
  return std::gcd(matrix.first_col, stored);
}

// Columns that share a scale; 0: none do.
int64_t GroupOf(const PlainStorage& /*storage*/) { return 0; }
int64_t GroupOf(const GroupedStorage& storage) { return storage.group_size; }
int64_t GroupOf(const Fp8Storage& storage) { return storage.block_cols; }
int64_t GroupOf(const Mxfp4Storage& /*storage*/) { return Mxfp4Storage::kGroup; }

// With memory for all codes and scales.
CodedWeights Empty(CodeFormat format, const MatrixView& matrix, int64_t group) {
  CodedWeights coded;
  coded.format = format;
  coded.rows = matrix.rows;
  coded.cols = matrix.cols;
  coded.group = group;
  const CodedMatrix sizes = coded.view();
  coded.codes.resize(static_cast<size_t>(matrix.rows * sizes.row_bytes()));
  coded.scales.reserve(static_cast<size_t>(matrix.rows * sizes.groups()));
  return coded;
}

std::optional<CodedWeights> Read(const PlainStorage& storage, const MatrixView& matrix) {
  if (storage.tensor.dtype != StoredDType::kF16 || storage.col_stride != 1) return std::nullopt;
  CodedWeights coded = Empty(CodeFormat::kF16, matrix, 0);
  const int64_t row_bytes = coded.view().row_bytes();
  const std::byte* values = storage.tensor.bytes.data() + storage.offset * 2;
  for (int64_t r = 0; r < matrix.rows; ++r) {
    std::memcpy(coded.codes.data() + r * row_bytes, values + r * storage.row_stride * 2,
                static_cast<size_t>(row_bytes));
  }
  return coded;
}

std::optional<CodedWeights> Read(const GroupedStorage& storage, const MatrixView& matrix) {
  const int64_t group = GroupWithin(matrix, storage.group_size);
  if (!GroupsSuitKernels(group, matrix.cols) ||
      !storage.GroupsAreNeighbours(matrix.first_col, matrix.cols)) {
    return std::nullopt;
  }
  const bool nibbles = storage.codes.bits == 4;
  CodedWeights coded = Empty(nibbles ? CodeFormat::kInt4 : CodeFormat::kInt8, matrix, group);
  coded.scale_format = ScaleFormatOf(storage.scales);
  const int64_t row_bytes = coded.view().row_bytes();
  for (int64_t r = 0; r < matrix.rows; ++r) {
    std::byte* row = coded.codes.data() + r * row_bytes;
    for (int64_t c = 0; c < matrix.cols; ++c) {
      const uint32_t code = storage.Code(matrix.first_row + r, matrix.first_col + c);
      if (nibbles) {
        row[c / 2] |= static_cast<std::byte>(code << 4 * (c % 2));
      } else {
        row[c] = static_cast<std::byte>(code);
      }
    }
    for (int64_t c = 0; c < matrix.cols; c += group) {
      const int64_t stored = storage.Group(matrix.first_col + c);
      coded.scales.push_back(storage.Scale(matrix.first_row + r, stored));
      coded.zeros.push_back(static_cast<uint8_t>(storage.Zero(matrix.first_row + r, stored)));
    }
  }
  const int middle = MiddleOf(coded.format);
  if (std::all_of(coded.zeros.begin(), coded.zeros.end(),
                  [middle](uint8_t zero) { return zero == middle; })) {
    coded.zeros.clear();
  }
  return coded;
}

std::optional<CodedWeights> Read(const Fp8Storage& storage, const MatrixView& matrix) {
  const int64_t group = GroupWithin(matrix, storage.block_cols);
  if (!GroupsSuitKernels(group, matrix.cols)) return std::nullopt;
  CodedWeights coded = Empty(CodeFormat::kFp8E4M3, matrix, group);
  coded.scale_format = ScaleFormatOf(storage.scales);
  for (int64_t r = 0; r < matrix.rows; ++r) {
    const int64_t row = matrix.first_row + r;
    std::memcpy(coded.codes.data() + r * matrix.cols, storage.RowCodes(row) + matrix.first_col,
                static_cast<size_t>(matrix.cols));
    for (int64_t c = 0; c < matrix.cols; c += group) {
      coded.scales.push_back(storage.Scale(row, matrix.first_col + c));
    }
  }
  return coded;
}

std::optional<CodedWeights> Read(const Mxfp4Storage& storage, const MatrixView& matrix) {
  const int64_t group = GroupWithin(matrix, Mxfp4Storage::kGroup);
  // Two codes share a byte.
  if (!GroupsSuitKernels(group, matrix.cols) || matrix.first_col % 2 != 0) return std::nullopt;
  CodedWeights coded = Empty(CodeFormat::kFp4E2M1, matrix, group);
  coded.scale_format = ScaleFormat::kE8M0;
  const int64_t row_bytes = coded.view().row_bytes();
  for (int64_t r = 0; r < matrix.rows; ++r) {
    const int64_t row = matrix.first_row + r;
    std::memcpy(coded.codes.data() + r * row_bytes, storage.RowCodes(row) + matrix.first_col / 2,
                static_cast<size_t>(row_bytes));
    const std::byte* exponents = storage.RowScales(row);
    for (int64_t c = 0; c < matrix.cols; c += group) {
      const int64_t stored = (matrix.first_col + c) / Mxfp4Storage::kGroup;
      coded.scales.push_back(std::ldexp(1.0F, std::to_integer<int>(exponents[stored]) - 127));
    }
  }
  return coded;
}

}  // namespace

CodedMatrix CodedWeights::view() const {
  return {.format = format,
          .rows = rows,
          .cols = cols,
          .codes = codes.data(),
          .group = group,
          .scales = scales.data(),
          .scale_format = scale_format,
          .zeros = zeros.empty() ? nullptr : zeros.data()};
}

absl::Status CheckGroupsWhole(const MatrixView& part) {
  const int64_t stored =
      std::visit([](const auto& storage) { return GroupOf(storage); }, part.storage);
  if (stored == 0 || part.first_col % stored == 0) return absl::OkStatus();
  const int64_t group = GroupWithin(part, stored);
  // Where two codes share a byte as they are stored.
  const bool pairs = std::holds_alternative<Mxfp4Storage>(part.storage);
  const bool whole_bytes = !pairs || part.first_col % 2 == 0;
  if (GroupsSuitKernels(group, part.cols) && whole_bytes) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat(
      part.name(), ": columns ", part.first_col, " to ", part.first_col + part.cols - 1,
      " begin inside a group of ", stored, " and share groups of ", group,
      " with its stored ones, wanted a multiple of 8: fewer tp ranks, or experts whole (ep)"));
}

std::optional<CodedWeights> ReadCoded(const MatrixView& matrix) {
  return std::visit([&](const auto& storage) { return Read(storage, matrix); }, matrix.storage);
}

}  // namespace troupe
