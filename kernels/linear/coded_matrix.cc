#include "kernels/linear/coded_matrix.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/check.h"
#include "kernels/linear/linear.h"

namespace troupe {

float FromE4M3(uint8_t code) {
  const uint32_t magnitude = code & 0x7F;
  const uint32_t sign = static_cast<uint32_t>(code & 0x80) << 24;
  if (magnitude == 0x7F) return std::bit_cast<float>(0x7FC00000U | sign);
  // Exponent and mantissa at f32's places; the product puts the bias right and makes subnormal
  // numbers normal.
  const float value = std::bit_cast<float>(magnitude << 20) * 0x1p120F;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
}

uint8_t ToE4M3(float value) {
  constexpr int kLeastExponent = -6;
  const float magnitude = std::min(std::fabs(value), kMostFp8);
  const int sign = std::signbit(value) ? 0x80 : 0;
  const int exponent =
      std::max(magnitude > 0.0F ? std::ilogb(magnitude) : kLeastExponent, kLeastExponent);
  // In units of the last place; 16 of them are 8 of the next exponent's.
  const int units = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 3 - exponent)));
  return static_cast<uint8_t>(sign | ((exponent - kLeastExponent) * 8 + units));
}

float FromF16(uint16_t bits) {
  const uint32_t magnitude = static_cast<uint32_t>(bits & 0x7FFF) << 13;
  const float value = std::bit_cast<float>(magnitude) * 0x1p112F;
  const bool special = (bits & 0x7C00) == 0x7C00;  // infinity or NaN
  const uint32_t shown = special ? magnitude | 0x7F800000U : std::bit_cast<uint32_t>(value);
  return std::bit_cast<float>(shown | static_cast<uint32_t>(bits & 0x8000) << 16);
}

uint16_t ToF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return sign | 0x7E00;
  if (magnitude >= 65520.0F) return sign | 0x7C00;
  if (magnitude < 0x1p-14F) {
    // Subnormal: a whole number of 2^-24, rounded by the default rounding mode.
    return sign | static_cast<uint16_t>(std::lrint(magnitude * 0x1p24F));
  }
  const uint32_t rounded = (bits & 0x7FFFFFFF) + 0xFFF + (bits >> 13 & 1);
  return sign | static_cast<uint16_t>((rounded - (112U << 23)) >> 13);
}

bool PackTogether(const CodedMatrix& a, const CodedMatrix& b) {
  if (a.format != b.format || a.cols != b.cols) return false;
  if (!HasScales(a.format)) return true;
  const bool steps = a.group > 0 && (a.group % 8 == 0 || a.group >= a.cols);
  return steps && std::min(a.group, a.cols) == std::min(b.group, b.cols);
}

bool SuitsIntegerProducts(const CodedMatrix& matrix) {
  return IsInteger(matrix.format) && std::min(matrix.group, matrix.cols) <= kMostIntegerInputs;
}

bool SuitsFp8Products(const CodedMatrix& matrix) {
  return matrix.format == CodeFormat::kFp8E4M3 &&
         std::min(matrix.group, matrix.cols) == std::min(kFp8Inputs, matrix.cols);
}

float DecodeElement(const CodedMatrix& matrix, int64_t row, int64_t col) {
  CHECK(row < matrix.rows && col < matrix.cols);
  const auto* codes = reinterpret_cast<const uint8_t*>(matrix.codes) + row * matrix.row_bytes();
  const auto byte_at = [&](int64_t index) { return static_cast<uint32_t>(codes[index]); };
  if (matrix.format == CodeFormat::kF16) {
    return FromF16(static_cast<uint16_t>(byte_at(2 * col) | byte_at(2 * col + 1) << 8));
  }
  const uint32_t code =
      BitsOf(matrix.format) == 4 ? byte_at(col / 2) >> 4 * (col % 2) & 15 : byte_at(col);
  const int64_t group = row * matrix.groups() + col / matrix.group;
  const float scale = matrix.scales[group];
  if (matrix.format == CodeFormat::kFp8E4M3) return FromE4M3(static_cast<uint8_t>(code)) * scale;
  if (matrix.format == CodeFormat::kFp4E2M1) return kE2M1Values[code] * scale;
  const int zero = matrix.zeros != nullptr ? matrix.zeros[group] : MiddleOf(matrix.format);
  return static_cast<float>(static_cast<int>(code) - zero) * scale;
}

}  // namespace troupe
