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

void Rotate(const HeadNormRopeParams& params, int32_t position, std::vector<double>& x) {
  const int half = params.RotatedDims() / 2;
  for (int j = 0; j < half; ++j) {
    // The angle is formed in f32, as the models that define it do.
    const double angle = static_cast<float>(position) * params.inverse_frequency[j];
    const double cosine = std::cos(angle) * params.amplitude;
    const double sine = std::sin(angle) * params.amplitude;
    double& first = x[params.first_rotated + (params.interleaved ? 2 * j : j)];
    double& second = x[params.first_rotated + (params.interleaved ? 2 * j + 1 : j + half)];
    const double a = first;
    const double b = second;
    first = a * cosine - b * sine;
    second = b * cosine + a * sine;
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
      if (params.inverse_frequency != nullptr) Rotate(params, params.position[token], x);
      for (int c = 0; c < params.head_dim; ++c) values[c] = static_cast<float>(x[c]);
    }
  }
}

}  // namespace troupe
