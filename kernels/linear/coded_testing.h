// Random weights as codes, for tests and benches.
//
// Thread model: plain values. Ownership: RandomCodes owns what its view points at.
#ifndef TROUPE_KERNELS_LINEAR_CODED_TESTING_H_
#define TROUPE_KERNELS_LINEAR_CODED_TESTING_H_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/element.h"
#include "kernels/linear/coded_matrix.h"
#include "kernels/linear/linear.h"

namespace troupe {

struct CodedFormat {
  std::string name;
  CodeFormat code = CodeFormat::kInt4;
  int64_t group = 64;
  ScaleFormat scale = ScaleFormat::kBf16;
  bool zeros = false;
  int64_t scale_rows = 1;  // neighbouring rows that share scales
};

// Everything that checkpoints hold.
inline std::vector<CodedFormat> CodedFormats() {
  using enum CodeFormat;
  constexpr int64_t kRow = 1 << 20;
  return {{"f16", kF16, 0, ScaleFormat::kF32},
          {"fp8_128", kFp8E4M3, 128, ScaleFormat::kF32},
          {"fp8_block", kFp8E4M3, 128, ScaleFormat::kF32, false, 64},
          {"fp8_row", kFp8E4M3, kRow, ScaleFormat::kBf16},
          {"int8_row", kInt8, kRow, ScaleFormat::kF32},
          {"int8_64", kInt8, 64, ScaleFormat::kF16},
          {"int8_128_zeros", kInt8, 128, ScaleFormat::kF16, true},
          {"int4_32", kInt4, 32, ScaleFormat::kBf16},
          {"int4_32_zeros", kInt4, 32, ScaleFormat::kF16, true},
          {"int4_64", kInt4, 64, ScaleFormat::kF16},
          {"int4_128_zeros", kInt4, 128, ScaleFormat::kF32, true},
          {"mxfp4", kFp4E2M1, 32, ScaleFormat::kE8M0}};
}

// Those that are multiplied as integers.
inline std::vector<CodedFormat> IntegerFormats() {
  std::vector<CodedFormat> formats;
  for (CodedFormat& format : CodedFormats()) {
    if (IsInteger(format.code)) formats.push_back(std::move(format));
  }
  return formats;
}

inline std::string PrecisionName(Precision precision) {
  switch (precision) {
    case Precision::kF32:
      return "exact";
    case Precision::kBf16:
      return "rounded";
    case Precision::kInt8Groups:
      return "int8_groups";
    case Precision::kInt8Rows:
      return "int8_rows";
    case Precision::kFp8Groups:
      return "fp8_groups";
  }
  return "unknown";
}

class RandomCodes {
 public:
  // Weights of about `size`.
  RandomCodes(const CodedFormat& format, int64_t rows, int64_t cols, uint64_t seed,
              float size = 1.0F) {
    std::mt19937_64 engine(seed);
    view_ = {.format = format.code,
             .rows = rows,
             .cols = cols,
             .group = format.group,
             .scale_format = format.scale};
    if (format.code == CodeFormat::kF16) {
      FillF16(size, engine);
    } else {
      FillCodes(engine);
    }
    const float largest = size / Spread(format.code);
    std::uniform_real_distribution<float> uniform(0.5F * largest, largest);
    for (int64_t i = 0; i < rows * view_.groups(); ++i) {
      const float scale = Round(uniform(engine), format.scale);
      const bool first = i / view_.groups() % format.scale_rows == 0;
      scales_.push_back(first ? scale : scales_[static_cast<size_t>(i - view_.groups())]);
      zeros_.push_back(static_cast<uint8_t>(engine() % (2U * MiddleOf(format.code))));
    }
    view_.codes = codes_.data();
    view_.scales = scales_.data();
    if (format.zeros) view_.zeros = zeros_.data();
  }
  RandomCodes(const RandomCodes&) = delete;
  RandomCodes& operator=(const RandomCodes&) = delete;

  const CodedMatrix& view() const { return view_; }

 private:
  void FillF16(float size, std::mt19937_64& engine) {
    std::uniform_real_distribution<float> uniform(-1.5F * size, 1.5F * size);
    for (int64_t i = 0; i < view_.rows * view_.cols; ++i) {
      const uint16_t bits = ToF16(uniform(engine));
      codes_.push_back(static_cast<std::byte>(bits & 0xFF));
      codes_.push_back(static_cast<std::byte>(bits >> 8));
    }
  }

  // All codes but NaN.
  void FillCodes(std::mt19937_64& engine) {
    uint64_t bits = 0;
    codes_.resize(view_.rows * view_.row_bytes());
    for (size_t i = 0; i < codes_.size(); ++i, bits >>= 8) {
      if (i % 8 == 0) bits = engine();
      uint64_t byte = bits & 0xFF;
      if (view_.format == CodeFormat::kFp8E4M3 && (byte & 0x7F) == 0x7F) byte ^= 1;
      codes_[i] = static_cast<std::byte>(byte);
    }
  }
  // The usual size of a format's numbers.
  static float Spread(CodeFormat format) {
    switch (format) {
      case CodeFormat::kFp8E4M3:
        return 128;
      case CodeFormat::kInt8:
        return 74;
      case CodeFormat::kInt4:
        return 5;
      case CodeFormat::kFp4E2M1:
        return 3;
      case CodeFormat::kF16:
        break;
    }
    return 1;
  }
  static float Round(float value, ScaleFormat format) {
    switch (format) {
      case ScaleFormat::kF32:
        return value;
      case ScaleFormat::kBf16:
        return RoundToBf16(value);
      case ScaleFormat::kF16:
        return FromF16(ToF16(value));
      case ScaleFormat::kE8M0:
        return std::exp2(std::floor(std::log2(value)));
    }
    return value;
  }

  CodedMatrix view_;
  std::vector<std::byte> codes_;
  std::vector<float> scales_;
  std::vector<uint8_t> zeros_;
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_CODED_TESTING_H_
