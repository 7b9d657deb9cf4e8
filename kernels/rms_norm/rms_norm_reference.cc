#include "kernels/rms_norm/rms_norm_reference.h"

#include <cmath>

#include "base/check.h"

namespace troupe {
namespace {

double SquareSum(const Tensor& x, int64_t token) {
  double squares = 0;
  for (int64_t c = 0; c < x.cols; ++c) {
    squares += static_cast<double>(x.f32(token)[c]) * x.f32(token)[c];
  }
  return squares;
}

}  // namespace

void RmsNormReference(const RmsNormParams& params) {
  const int64_t size = params.x.cols;
  CHECK_EQ(params.weight.cols, size);
  for (int64_t token = 0; token < params.x.rows; ++token) {
    const float* x = params.x.f32(token);
    const double squares =
        params.square_sums == nullptr ? SquareSum(params.x, token) : params.square_sums[token];
    const double scale =
        1 / std::sqrt(squares / static_cast<double>(size * params.parts) + params.eps);
    float* out = params.out.f32(token);
    for (int64_t c = 0; c < size; ++c) {
      const double before = params.accumulate ? out[c] : 0.0;
      out[c] = static_cast<float>(before + x[c] * scale * params.weight.f32()[c]);
    }
  }
}

void SquareSumsReference(const SquareSumsParams& params) {
  for (int64_t token = 0; token < params.x.rows; ++token) {
    params.sums[token] = static_cast<float>(SquareSum(params.x, token));
  }
}

}  // namespace troupe
