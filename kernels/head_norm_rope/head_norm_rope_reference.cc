#include "kernels/head_norm_rope/head_norm_rope_reference.h"

#include <cmath>
#include <vector>

#include "base/check.h"

namespace troupe {
namespace {

void Normalise(std::vector<double>& x, const float* weight, double eps) {
  double squares = 0;
  for (const double value : x) squares += value * value;
  const double scale = 1 / std::sqrt(squares / static_cast<double>(x.size()) + eps);
  for (size_t c = 0; c < x.size(); ++c) x[c] *= scale * weight[c];
}

void Rotate(std::vector<double>& x, const float* inverse_frequency, int32_t position) {
  const size_t half = x.size() / 2;
  for (size_t j = 0; j < half; ++j) {
    // The angle is formed in f32, as the models that define it do.
    const double angle = static_cast<float>(position) * inverse_frequency[j];
    const double a = x[j];
    const double b = x[j + half];
    x[j] = a * std::cos(angle) - b * std::sin(angle);
    x[j + half] = b * std::cos(angle) + a * std::sin(angle);
  }
}

}  // namespace

void HeadNormRopeReference(const HeadNormRopeParams& params) {
  CHECK_EQ(params.x.cols, static_cast<int64_t>(params.heads) * params.head_dim);
  for (int64_t token = 0; token < params.x.rows; ++token) {
    for (int head = 0; head < params.heads; ++head) {
      float* values = params.x.f32(token) + static_cast<int64_t>(head) * params.head_dim;
      std::vector<double> x(values, values + params.head_dim);
      if (params.norm_weight != nullptr) Normalise(x, params.norm_weight, params.eps);
      if (params.inverse_frequency != nullptr) {
        Rotate(x, params.inverse_frequency, params.position[token]);
      }
      for (int c = 0; c < params.head_dim; ++c) values[c] = static_cast<float>(x[c]);
    }
  }
}

}  // namespace troupe
