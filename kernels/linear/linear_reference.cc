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
      group_(precision == Precision::kInt8Groups ? std::min(parts.front().group, inputs())
                                                 : inputs()) {
  CHECK(!RoundsToIntegers(precision) || SuitsIntegerProducts(parts.front()));
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
  if (precision() == Precision::kBf16) {
    for (double& value : rounded) value = RoundToBf16(static_cast<float>(value));
  }
  if (!RoundsToIntegers(precision())) return rounded;
  for (int64_t first = 0; first < inputs(); first += group_) {
    const int64_t end = std::min(first + group_, inputs());
    float range = 0.0F;
    bool finite = true;
    for (int64_t i = first; i < end; ++i) {
      range = std::max(range, std::fabs(x[i]));
      finite = finite && std::isfinite(x[i]);
    }
    const float inverse = range < kLeastIntegerRange ? 0.0F : 127.0F / range;
    for (int64_t i = first; i < end; ++i) {
      rounded[i] = finite ? std::nearbyint(x[i] * inverse) * static_cast<double>(range / 127.0F)
                          : std::numeric_limits<double>::quiet_NaN();
    }
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
