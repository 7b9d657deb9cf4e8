// Weights as codes of a few bits with scales: what Ops::PackCoded takes, whatever the device.
//
//     value(r, c) = (number(code(r, c)) - zero(r, g)) * scale(r, g)    with g = c / group
//
// where only kInt8 and kInt4 have zeros.
//
// Thread model: plain values. Ownership: borrows everything it points at.
#ifndef TROUPE_KERNELS_LINEAR_CODED_MATRIX_H_
#define TROUPE_KERNELS_LINEAR_CODED_MATRIX_H_

#include <cstddef>
#include <cstdint>

namespace troupe {

enum class CodeFormat : uint8_t {
  kF16,      // values of their own: no scales
  kFp8E4M3,  // sign, 4 bits of exponent with bias 7, 3 of mantissa; no infinities
  kInt8,     // 0 .. 255
  kInt4,     // 0 .. 15
  kFp4E2M1,  // sign and 0, 0.5, 1, 1.5, 2, 3, 4, 6
};

constexpr int BitsOf(CodeFormat format) {
  return format == CodeFormat::kF16                                      ? 16
         : format == CodeFormat::kInt4 || format == CodeFormat::kFp4E2M1 ? 4
                                                                         : 8;
}
constexpr bool HasScales(CodeFormat format) { return format != CodeFormat::kF16; }
constexpr bool IsInteger(CodeFormat format) {
  return format == CodeFormat::kInt8 || format == CodeFormat::kInt4;
}
// The zero of integer codes that have none of their own.
constexpr int MiddleOf(CodeFormat format) { return 1 << (BitsOf(format) - 1); }

// The narrowest type that holds every scale of a matrix exactly.
enum class ScaleFormat : uint8_t { kF32, kBf16, kF16, kE8M0 };

constexpr int64_t BytesOf(ScaleFormat format) {
  return format == ScaleFormat::kF32 ? 4 : format == ScaleFormat::kE8M0 ? 1 : 2;
}

struct CodedMatrix {
  CodeFormat format = CodeFormat::kInt8;
  int64_t rows = 0;
  int64_t cols = 0;
  const std::byte* codes = nullptr;  // [rows, ceil(cols * bits / 8)]; 4 bits: the low ones first
  // A multiple of 8, or at least cols.
  int64_t group = 0;
  const float* scales = nullptr;  // [rows, groups()], each exact in scale_format
  ScaleFormat scale_format = ScaleFormat::kF32;
  const uint8_t* zeros = nullptr;  // [rows, groups()]; null: MiddleOf(format)

  int64_t groups() const { return HasScales(format) ? (cols + group - 1) / group : 0; }
  int64_t row_bytes() const { return (cols * BitsOf(format) + 7) / 8; }
};

// The numbers that the codes of kFp4E2M1 stand for.
inline constexpr float kE2M1Values[16] = {0.0F,  0.5F,  1.0F,  1.5F,  2.0F,  3.0F,  4.0F,  6.0F,
                                          -0.0F, -0.5F, -1.0F, -1.5F, -2.0F, -3.0F, -4.0F, -6.0F};

// What a code of kFp8E4M3 stands for; 0x7f and 0xff are NaN.
float FromE4M3(uint8_t code);
// The nearest code, ties to even; beyond the largest number that one. Not for NaN.
uint8_t ToE4M3(float value);
float FromF16(uint16_t bits);
// To nearest, ties to even; beyond the largest number to infinity.
uint16_t ToF16(float value);

// Whether both can lie under one another as codes: the same number of columns, and the same format
// with the same groups. Scales and zeros may differ in form.
bool PackTogether(const CodedMatrix& a, const CodedMatrix& b);

// Whether Precision::kInt8Groups and kInt8Rows (kernels/linear/linear.h) are for it.
bool SuitsIntegerProducts(const CodedMatrix& matrix);
// The same of Precision::kFp8Groups.
bool SuitsFp8Products(const CodedMatrix& matrix);

// One element, as the formula says.
float DecodeElement(const CodedMatrix& matrix, int64_t row, int64_t col);

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_CODED_MATRIX_H_
