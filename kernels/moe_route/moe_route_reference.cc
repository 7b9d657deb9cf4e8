#include "kernels/moe_route/moe_route_reference.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/check.h"

namespace troupe {

void MoeRouteReference(const MoeRouteParams& params) {
  const int64_t count = params.logits.cols;
  CHECK_LE(params.top_k, count);
  for (int64_t token = 0; token < params.logits.rows; ++token) {
    std::vector<float> scores(count);
    for (int64_t e = 0; e < count; ++e) {
      const double logit = params.logits.f32(token)[e];
      scores[e] = static_cast<float>(1 / (1 + std::exp(-logit)));
    }
    std::vector<int32_t> order(count);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      return scores[a] + params.bias[a] > scores[b] + params.bias[b];
    });
    float sum = 0;
    for (int k = 0; k < params.top_k; ++k) sum += scores[order[k]];
    for (int k = 0; k < params.top_k; ++k) {
      const float score = scores[order[k]];
      params.experts[token * params.top_k + k] = order[k];
      params.weights[token * params.top_k + k] =
          (params.normalize ? score / (sum + 1e-20F) : score) * params.scale;
      if (params.load != nullptr) ++params.load[order[k]];
    }
  }
}

}  // namespace troupe
