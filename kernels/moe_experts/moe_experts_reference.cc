#include "kernels/moe_experts/moe_experts_reference.h"

#include <vector>

#include "base/check.h"
#include "kernels/activation_reference.h"
#include "kernels/linear/linear_reference.h"

namespace troupe {
namespace {

// W x + bias; `bias` may be null.
std::vector<double> Product(const PackedMatrix* w, const float* bias, const float* x) {
  std::vector<double> y = AsReference(w).Times(x);
  for (size_t i = 0; bias != nullptr && i < y.size(); ++i) y[i] += bias[i];
  return y;
}

std::vector<double> Expert(const ExpertWeights& weights, const Activation& activation,
                           const float* x) {
  const std::vector<double> gate_up = Product(weights.gate_up, weights.gate_up_bias, x);
  const size_t size = gate_up.size() / 2;
  std::vector<float> inner(size);
  for (size_t i = 0; i < size; ++i) {
    inner[i] = static_cast<float>(ActivateReference(activation, gate_up[i], gate_up[size + i]));
  }
  return Product(weights.down, weights.down_bias, inner.data());
}

}  // namespace

void MoeExpertsReference(const MoeExpertsParams& params) {
  for (int64_t token = 0; token < params.x.rows; ++token) {
    const float* x = params.x.f32(token);
    std::vector<double> sum(params.out.cols, 0.0);
    const auto add = [&](const ExpertWeights& weights, double factor) {
      const std::vector<double> y = Expert(weights, params.activation, x);
      for (size_t c = 0; c < sum.size(); ++c) sum[c] += factor * y[c];
    };
    for (int k = 0; k < params.top_k; ++k) {
      const int64_t at = token * params.top_k + k;
      if (params.chosen[at] < 0) continue;
      CHECK_LT(params.chosen[at], params.experts->size());
      add((*params.experts)[params.chosen[at]], params.weights[at]);
    }
    if (params.shared != nullptr) add(*params.shared, 1.0);
    float* out = params.out.f32(token);
    for (size_t c = 0; c < sum.size(); ++c) {
      out[c] = static_cast<float>((params.accumulate ? out[c] : 0.0) + sum[c]);
    }
  }
}

}  // namespace troupe
