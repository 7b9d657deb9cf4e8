#include "model/coded_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"

namespace troupe {
namespace {

ScaleFormat ScaleFormatOf(const TensorView& scales) {
  if (scales.dtype == StoredDType::kBF16) return ScaleFormat::kBf16;
  if (scales.dtype == StoredDType::kF16) return ScaleFormat::kF16;
  return ScaleFormat::kF32;
}

bool GroupsSuitKernels(int64_t group, int64_t cols) { return group % 8 == 0 || group >= cols; }

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
  const std::byte* values = matrix.Contiguous();
  if (storage.tensor.dtype != StoredDType::kF16 || values == nullptr) return std::nullopt;
  CodedWeights coded = Empty(CodeFormat::kF16, matrix, 0);
  std::memcpy(coded.codes.data(), values, coded.codes.size());
  return coded;
}

std::optional<CodedWeights> Read(const GroupedStorage& storage, const MatrixView& matrix) {
  if (!GroupsSuitKernels(storage.group_size, matrix.cols) ||
      !storage.GroupsAreNeighbours(matrix.cols)) {
    return std::nullopt;
  }
  const bool nibbles = storage.codes.bits == 4;
  CodedWeights coded =
      Empty(nibbles ? CodeFormat::kInt4 : CodeFormat::kInt8, matrix, storage.group_size);
  coded.scale_format = ScaleFormatOf(storage.scales);
  const int64_t row_bytes = coded.view().row_bytes();
  for (int64_t r = 0; r < matrix.rows; ++r) {
    std::byte* row = coded.codes.data() + r * row_bytes;
    for (int64_t c = 0; c < matrix.cols; ++c) {
      const uint32_t code = storage.Code(r, c);
      if (nibbles) {
        row[c / 2] |= static_cast<std::byte>(code << 4 * (c % 2));
      } else {
        row[c] = static_cast<std::byte>(code);
      }
    }
    for (int64_t g = 0; g < storage.groups; ++g) {
      coded.scales.push_back(storage.Scale(r, g));
      coded.zeros.push_back(static_cast<uint8_t>(storage.Zero(r, g)));
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
  if (!GroupsSuitKernels(storage.block_cols, matrix.cols)) return std::nullopt;
  CodedWeights coded = Empty(CodeFormat::kFp8E4M3, matrix, storage.block_cols);
  coded.scale_format = ScaleFormatOf(storage.scales);
  CHECK_EQ(coded.codes.size(), storage.codes.bytes.size());
  std::memcpy(coded.codes.data(), storage.codes.bytes.data(), coded.codes.size());
  for (int64_t r = 0; r < matrix.rows; ++r) {
    for (int64_t c = 0; c < matrix.cols; c += storage.block_cols) {
      coded.scales.push_back(storage.Scale(r, c));
    }
  }
  return coded;
}

std::optional<CodedWeights> Read(const Mxfp4Storage& storage, const MatrixView& matrix) {
  CodedWeights coded = Empty(CodeFormat::kFp4E2M1, matrix, Mxfp4Storage::kGroup);
  coded.scale_format = ScaleFormat::kE8M0;
  const int64_t row_bytes = coded.view().row_bytes();
  for (int64_t r = 0; r < matrix.rows; ++r) {
    std::memcpy(coded.codes.data() + r * row_bytes, storage.RowCodes(r, matrix.cols),
                static_cast<size_t>(row_bytes));
    const std::byte* exponents = storage.RowScales(r, matrix.cols);
    for (int64_t g = 0; g < matrix.cols / Mxfp4Storage::kGroup; ++g) {
      coded.scales.push_back(std::ldexp(1.0F, std::to_integer<int>(exponents[g]) - 127));
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

std::optional<CodedWeights> ReadCoded(const MatrixView& matrix) {
  return std::visit([&](const auto& storage) { return Read(storage, matrix); }, matrix.storage);
}

}  // namespace troupe
