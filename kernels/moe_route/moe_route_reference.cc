#include "kernels/moe_route/moe_route_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "base/check.h"
#include "kernels/linear/linear_reference.h"

namespace troupe {
namespace {

std::vector<float> Scores(RouterScoring scoring, const float* logits, int64_t count) {
  std::vector<float> scores(count);
  const double largest = *std::max_element(logits, logits + count);
  double sum = 0;
  for (int64_t e = 0; e < count; ++e) sum += std::exp(logits[e] - largest);
  for (int64_t e = 0; e < count; ++e) {
    const double logit = logits[e];
    scores[e] =
        static_cast<float>(scoring == RouterScoring::kSigmoid ? 1 / (1 + std::exp(-logit))
                                                              : std::exp(logit - largest) / sum);
  }
  return scores;
}

// Indices by falling value, equal ones in their order.
std::vector<int32_t> Order(const std::vector<float>& values) {
  std::vector<int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return values[a] > values[b]; });
  return order;
}

// Leaves no chance to experts outside of the chosen groups.
void LimitToGroups(const MoeRouteParams& params, std::vector<float>& c) {
  const int64_t size = static_cast<int64_t>(c.size()) / params.groups;
  std::vector<float> group_scores;
  for (int g = 0; g < params.groups; ++g) {
    std::vector<float> group(c.begin() + g * size, c.begin() + (g + 1) * size);
    std::sort(group.rbegin(), group.rend());
    const bool two = params.group_score == GroupScore::kTopTwoSum && size > 1;
    group_scores.push_back(two ? group[0] + group[1] : group[0]);
  }
  const std::vector<int32_t> order = Order(group_scores);
  for (int i = params.groups_chosen; i < params.groups; ++i) {
    std::fill_n(c.begin() + order[i] * size, size, -std::numeric_limits<float>::infinity());
  }
}

}  // namespace

void MoeRouteReference(const MoeRouteParams& params) {
  if (params.router != nullptr) {
    LinearReference(
        {params.x, params.router, params.logits, /*accumulate=*/false, params.router_bias});
  }
  const int64_t count = params.logits.cols;
  CHECK_LE(params.top_k, count);
  for (int64_t token = 0; token < params.logits.rows; ++token) {
    const std::vector<float> scores = Scores(params.scoring, params.logits.f32(token), count);
    std::vector<float> c = scores;
    for (int64_t e = 0; params.bias != nullptr && e < count; ++e) c[e] += params.bias[e];
    if (params.group_score != GroupScore::kNone) LimitToGroups(params, c);
    const std::vector<int32_t> order = Order(c);
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
