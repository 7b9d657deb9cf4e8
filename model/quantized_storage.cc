#include "model/quantized_storage.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "kernels/linear/coded_matrix.h"

namespace troupe {
namespace {

constexpr int64_t kWordBits = 32;

// The bit field of AutoAWQ's word that holds element j.
constexpr int kAwqField[8] = {0, 4, 1, 5, 2, 6, 3, 7};

float PlainAt(const TensorView& tensor, int64_t index) {
  const std::byte* data = tensor.bytes.data();
  if (tensor.dtype == StoredDType::kF32) {
    float value;
    std::memcpy(&value, data + 4 * index, sizeof(value));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, data + 2 * index, sizeof(bits));
  if (tensor.dtype == StoredDType::kF16) return FromF16(bits);
  CHECK(tensor.dtype == StoredDType::kBF16) << tensor.name;
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

}  // namespace

uint32_t PackedInts::At(int64_t i, int64_t j) const {
  const int64_t minor = tensor.shape.back();
  const int64_t fields = kWordBits / bits;
  int64_t bit = 0;
  if (tensor.dtype != StoredDType::kI32) {
    bit = (i * minor + j) * bits;  // bytes by themselves
  } else if (along_first) {
    bit = (i / fields * minor + j) * kWordBits + i % fields * bits;
  } else {
    const int64_t field = interleaved ? kAwqField[j % fields] : j % fields;
    bit = (i * minor + j / fields) * kWordBits + field * bits;
  }
  const auto byte = std::to_integer<uint32_t>(tensor.bytes[static_cast<size_t>(bit / 8)]);
  return (byte >> bit % 8 & ((1U << bits) - 1)) ^ flip;
}

uint32_t GroupedStorage::Code(int64_t row, int64_t col) const {
  return transposed ? codes.At(col, row) : codes.At(row, col);
}

uint32_t GroupedStorage::Zero(int64_t row, int64_t group) const {
  if (zeros.empty()) return 1U << (codes.bits - 1);
  const uint32_t stored = transposed ? zeros.At(group, row) : zeros.At(row, group);
  return (stored + zero_bias) & ((1U << codes.bits) - 1);
}

float GroupedStorage::Scale(int64_t row, int64_t group) const {
  const int64_t rows = scales.elements() / groups;
  return PlainAt(scales, transposed ? group * rows + row : row * groups + group);
}

int64_t GroupedStorage::Group(int64_t col) const {
  if (group_of.empty()) return col / group_size;
  int32_t group;
  std::memcpy(&group, group_of.bytes.data() + 4 * col, sizeof(group));
  return group;
}

bool GroupedStorage::GroupsAreNeighbours(int64_t first, int64_t count) const {
  for (int64_t c = first; c < first + count; ++c) {
    if (Group(c) != c / group_size) return false;
  }
  return true;
}

void ReadRow(const GroupedStorage& storage, int64_t row, int64_t first_col, absl::Span<float> out) {
  int64_t group = -1;
  float scale = 0.0F;
  int zero = 0;
  for (size_t c = 0; c < out.size(); ++c) {
    const int64_t col = first_col + static_cast<int64_t>(c);
    if (const int64_t own = storage.Group(col); own != group) {
      group = own;
      scale = storage.Scale(row, group);
      zero = static_cast<int>(storage.Zero(row, group));
    }
    out[c] = static_cast<float>(static_cast<int>(storage.Code(row, col)) - zero) * scale;
  }
}

float Fp8Storage::Scale(int64_t row, int64_t col) const {
  const int64_t col_blocks = (codes.shape[1] + block_cols - 1) / block_cols;
  return PlainAt(scales, row / block_rows * col_blocks + col / block_cols);
}

const std::byte* Fp8Storage::RowCodes(int64_t row) const {
  return codes.bytes.data() + row * codes.shape[1];
}

void ReadRow(const Fp8Storage& storage, int64_t row, int64_t first_col, absl::Span<float> out) {
  const int64_t end = first_col + static_cast<int64_t>(out.size());
  const std::byte* codes = storage.RowCodes(row);
  for (int64_t c = first_col; c < end;) {
    const float scale = storage.Scale(row, c);
    const int64_t block_end = std::min((c / storage.block_cols + 1) * storage.block_cols, end);
    for (; c < block_end; ++c) {
      out[static_cast<size_t>(c - first_col)] =
          FromE4M3(std::to_integer<uint8_t>(codes[c])) * scale;
    }
  }
}

int64_t Mxfp4Storage::cols() const { return blocks.shape[blocks.shape.size() - 2] * kGroup; }

const std::byte* Mxfp4Storage::RowCodes(int64_t row) const {
  return blocks.bytes.data() + (first_row + row * row_step) * (cols() / 2);
}

const std::byte* Mxfp4Storage::RowScales(int64_t row) const {
  return scales.bytes.data() + (first_row + row * row_step) * (cols() / kGroup);
}

void ReadRow(const Mxfp4Storage& storage, int64_t row, int64_t first_col, absl::Span<float> out) {
  const std::byte* codes = storage.RowCodes(row);
  const std::byte* scales = storage.RowScales(row);
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t c = first_col + static_cast<int64_t>(i);
    const int exponent = std::to_integer<int>(scales[c / Mxfp4Storage::kGroup]) - 127;
    const int code = std::to_integer<int>(codes[c / 2]) >> 4 * (c % 2) & 15;
    out[i] = std::ldexp(kE2M1Values[code], exponent);
  }
}

}  // namespace troupe
