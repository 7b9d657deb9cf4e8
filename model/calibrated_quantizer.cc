#include "model/calibrated_quantizer.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <thread>
#include <vector>

#include "base/check.h"

namespace troupe {
namespace {

// Of the mean of the diagonal, added to it: columns that hardly occur would otherwise take on the
// errors of all others.
constexpr double kDamping = 0.01;

// The upper triangular U with U^T U = H^-1, row by row. With H = M M^T and M upper triangular, U is
// M^-1. H is given at and under its diagonal.
class InverseFactor {
 public:
  InverseFactor(absl::Span<const float> products, int64_t size)
      : size_(size), values_(static_cast<size_t>(size * size)) {
    double sum = 0;
    for (int64_t i = 0; i < size; ++i) sum += products[i * size + i];
    const double damping = sum > 0 ? kDamping * sum / static_cast<double>(size) : 1.0;
    std::vector<double> m(values_.size());
    for (int64_t i = 0; i < size; ++i) {
      for (int64_t j = 0; j <= i; ++j) m[j * size + i] = products[i * size + j];
      m[i * size + i] += damping;
    }
    Factor(m);
    Invert(m);
  }

  const float* Row(int64_t i) const { return values_.data() + i * size_; }

 private:
  // From the last column to the first, in place.
  void Factor(std::vector<double>& m) const {
    std::vector<double> column(static_cast<size_t>(size_));
    for (int64_t k = size_ - 1; k >= 0; --k) {
      const double pivot = std::sqrt(m[k * size_ + k]);
      for (int64_t i = 0; i <= k; ++i) column[i] = m[i * size_ + k] /= pivot;
      for (int64_t i = 0; i < k; ++i) {
        for (int64_t j = i; j < k; ++j) m[i * size_ + j] -= column[i] * column[j];
      }
    }
  }

  // Row i of M^-1: its diagonal, then what makes each product with a column of M zero.
  void Invert(const std::vector<double>& m) {
    std::vector<double> row(static_cast<size_t>(size_));
    for (int64_t i = 0; i < size_; ++i) {
      std::fill(row.begin(), row.end(), 0.0);
      row[i] = 1.0;
      for (int64_t j = i; j < size_; ++j) {
        row[j] /= m[j * size_ + j];
        const double value = row[j];
        for (int64_t k = j + 1; k < size_; ++k) row[k] -= value * m[j * size_ + k];
      }
      std::copy(row.begin(), row.end(), values_.begin() + i * size_);
    }
  }

  int64_t size_;
  std::vector<float> values_;
};

void QuantizeRow(absl::Span<float> weights, const IntegerFormat& format,
                 const InverseFactor& inverse, absl::Span<const float> importance, int64_t row,
                 CodedWeights& coded) {
  const auto cols = static_cast<int64_t>(weights.size());
  const int64_t groups = coded.view().groups();
  const auto middle = static_cast<float>(1 << (format.bits - 1));
  std::byte* codes = coded.codes.data() + row * coded.view().row_bytes();
  float scale = 1.0F;
  for (int64_t c = 0; c < cols; ++c) {
    if (c % format.group == 0) {
      scale = GroupScale(weights.subspan(c, format.group), importance.subspan(c, format.group),
                         format.bits);
      coded.scales[row * groups + c / format.group] = scale;
    }
    const uint8_t code = NearestCode(weights[c], scale, format.bits);
    const bool nibbles = format.bits == 4;
    codes[nibbles ? c / 2 : c] |= static_cast<std::byte>(nibbles ? code << 4 * (c % 2) : code);
    const float* factor = inverse.Row(c);
    const float error = (weights[c] - scale * (static_cast<float>(code) - middle)) / factor[c];
    for (int64_t j = c + 1; j < cols; ++j) weights[j] -= error * factor[j];
  }
}

}  // namespace

CodedWeights QuantizeCalibrated(const MatrixView& matrix, const IntegerFormat& format,
                                absl::Span<const float> products, int threads) {
  CHECK_EQ(static_cast<int64_t>(products.size()), matrix.cols * matrix.cols);
  const InverseFactor inverse(products, matrix.cols);
  std::vector<float> importance(static_cast<size_t>(matrix.cols));
  for (int64_t c = 0; c < matrix.cols; ++c) {
    importance[c] = 1.0F / (inverse.Row(c)[c] * inverse.Row(c)[c]);
  }
  CodedWeights coded = RoomForCodes(matrix, format);
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    std::vector<float> values(static_cast<size_t>(matrix.cols));
    for (int64_t row; (row = next.fetch_add(1)) < matrix.rows;) {
      matrix.ReadRows(row, 1, absl::MakeSpan(values));
      QuantizeRow(absl::MakeSpan(values), format, inverse, importance, row, coded);
    }
  };
  std::vector<std::thread> helpers;
  for (int i = 1; i < threads; ++i) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  return coded;
}

}  // namespace troupe
