#include "kernels/linear/linear_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "kernels/element.h"

namespace troupe {
namespace {

template <class Part>
int64_t RowsOf(absl::Span<const Part> parts) {
  return std::accumulate(parts.begin(), parts.end(), int64_t{0},
                         [](int64_t rows, const Part& part) { return rows + part.rows; });
}

int64_t BytesOfParts(absl::Span<const CodedMatrix> parts) {
  return std::accumulate(parts.begin(), parts.end(), int64_t{0},
                         [](int64_t bytes, const CodedMatrix& part) {
                           const int64_t zero_bytes = part.zeros != nullptr ? 1 : 0;
                           const int64_t group = BytesOf(part.scale_format) + zero_bytes;
                           return bytes + part.rows * (part.row_bytes() + part.groups() * group);
                         });
}

int64_t BytesOfParts(absl::Span<const Tensor> parts) {
  return std::accumulate(parts.begin(), parts.end(), int64_t{0},
                         [](int64_t bytes, const Tensor& part) {
                           return bytes + part.rows * part.cols * BytesOf(part.dtype);
                         });
}

// The one of e4m3's numbers that is nearest, and of two the one with an even code.
double NearestE4M3(double value) {
  constexpr int kCodes = 127;  // the next one is NaN
  int best = 0;
  for (int code = 1; code < kCodes; ++code) {
    const double off = std::fabs(std::fabs(value) - FromE4M3(static_cast<uint8_t>(code)));
    const double least = std::fabs(std::fabs(value) - FromE4M3(static_cast<uint8_t>(best)));
    if (off < least || (off == least && code % 2 == 0)) best = code;
  }
  return std::copysign(FromE4M3(static_cast<uint8_t>(best)), value);
}

// To integers, or to numbers of e4m3, times the group's scale.
void RoundGroup(absl::Span<double> group, bool fp8) {
  float range = 0.0F;
  bool finite = true;
  for (const double value : group) {
    range = std::max(range, std::fabs(static_cast<float>(value)));
    finite = finite && std::isfinite(value);
  }
  const float most = fp8 ? kMostFp8 : 127.0F;
  const float inverse = range < kLeastIntegerRange ? 0.0F : most / range;
  for (double& value : group) {
    const float scaled = static_cast<float>(value) * inverse;
    value = !finite ? std::numeric_limits<double>::quiet_NaN()
                    : (fp8 ? NearestE4M3(scaled) : std::nearbyint(scaled)) *
                          static_cast<double>(range / most);
  }
}

}  // namespace

ReferenceMatrix::ReferenceMatrix(absl::Span<const Tensor> parts, Precision precision)
    : PackedMatrix(RowsOf(parts), parts.front().cols, precision, BytesOfParts(parts)) {
  values_.reserve(outputs() * inputs());
  for (const Tensor& part : parts) {
    CHECK_EQ(part.cols, inputs());
    for (int64_t row = 0; row < part.rows; ++row) {
      for (int64_t col = 0; col < part.cols; ++col) {
        values_.push_back(LoadElement(part.data, part.dtype, row * part.stride + col));
      }
    }
  }
}

ReferenceMatrix::ReferenceMatrix(absl::Span<const CodedMatrix> parts, Precision precision)
    : PackedMatrix(RowsOf(parts), parts.front().cols, precision, BytesOfParts(parts)),
      group_(precision == Precision::kInt8Groups  ? std::min(parts.front().group, inputs())
             : precision == Precision::kFp8Groups ? std::min(kFp8Inputs, inputs())
                                                  : inputs()) {
  CHECK(!RoundsToIntegers(precision) || SuitsIntegerProducts(parts.front()));
  CHECK(precision != Precision::kFp8Groups || SuitsFp8Products(parts.front()));
  values_.reserve(outputs() * inputs());
  for (const CodedMatrix& part : parts) {
    CHECK_EQ(part.cols, inputs());
    for (int64_t row = 0; row < part.rows; ++row) {
      for (int64_t col = 0; col < part.cols; ++col) {
        values_.push_back(DecodeElement(part, row, col));
      }
    }
  }
}

std::vector<double> ReferenceMatrix::Rounded(const float* x) const {
  std::vector<double> rounded(x, x + inputs());
  const bool fp8 = precision() == Precision::kFp8Groups;
  if (precision() == Precision::kBf16 || fp8) {
    for (double& value : rounded) value = RoundToBf16(static_cast<float>(value));
  }
  if (!RoundsToIntegers(precision()) && !fp8) return rounded;
  for (int64_t first = 0; first < inputs(); first += group_) {
    RoundGroup(absl::MakeSpan(rounded).subspan(first, std::min(group_, inputs() - first)), fp8);
  }
  return rounded;
}

std::vector<double> ReferenceMatrix::Times(const float* x) const {
  const std::vector<double> rounded = Rounded(x);
  std::vector<double> out(outputs(), 0.0);
  for (int64_t row = 0; row < outputs(); ++row) {
    for (int64_t col = 0; col < inputs(); ++col) {
      out[row] += values_[row * inputs() + col] * rounded[col];
    }
  }
  return out;
}

const ReferenceMatrix& AsReference(const PackedMatrix* matrix) {
  const auto* reference = dynamic_cast<const ReferenceMatrix*>(matrix);
  CHECK(reference != nullptr) << "the matrix was packed by another Ops";
  return *reference;
}

void LinearReference(const LinearParams& params) {
  const ReferenceMatrix& w = AsReference(params.w);
  CHECK_EQ(params.x.cols, w.inputs());
  CHECK_EQ(params.out.cols, w.outputs());
  for (int64_t token = 0; token < params.x.rows; ++token) {
    const std::vector<double> product = w.Times(params.x.f32(token));
    float* out = params.out.f32(token);
    for (int64_t i = 0; i < w.outputs(); ++i) {
      const double bias = params.bias == nullptr ? 0.0 : params.bias[i];
      out[i] = static_cast<float>((params.accumulate ? out[i] : 0.0) + product[i] + bias);
    }
  }
}

}  // namespace troupe
