#include "kernels/sample/sample_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace troupe {
namespace {

struct Candidate {
  uint32_t token;
  double weight;
};

uint32_t Best(const float* logits, int64_t count) {
  uint32_t best = kDamagedLogits;
  float largest = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < count; ++i) {
    if (std::isnan(logits[i]) || logits[i] == std::numeric_limits<float>::infinity()) {
      return kDamagedLogits;
    }
    if (logits[i] > largest) {
      largest = logits[i];
      best = static_cast<uint32_t>(i);
    }
  }
  return best;
}

double SumOf(const std::vector<Candidate>& candidates) {
  double sum = 0;
  for (const Candidate& candidate : candidates) sum += candidate.weight;
  return sum;
}

uint32_t Draw(const SampleRule& rule, const float* logits, int64_t count, float largest) {
  std::vector<Candidate> kept;
  for (int64_t i = 0; i < count; ++i) {
    // The quotient and the weight are numbers of single precision.
    const float scaled = (logits[i] - largest) / rule.temperature;
    kept.push_back(
        {static_cast<uint32_t>(i), static_cast<float>(std::exp(static_cast<double>(scaled)))});
  }
  std::stable_sort(kept.begin(), kept.end(),
                   [](const Candidate& a, const Candidate& b) { return a.weight > b.weight; });
  if (rule.top_k > 0 && rule.top_k < kept.size()) kept.resize(rule.top_k);
  if (rule.top_p < 1) {
    const double wanted = rule.top_p * SumOf(kept);
    double sum = 0;
    size_t held = 0;
    while (held < kept.size() && sum < wanted) sum += kept[held++].weight;
    kept.resize(held);
  }
  while (kept.size() > 1 && kept.back().weight < rule.min_p) kept.pop_back();
  std::sort(kept.begin(), kept.end(),
            [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
  const double drawn = Uniform01(rule.seed, rule.output_index) * SumOf(kept);
  double sum = 0;
  uint32_t token = kept.front().token;
  for (const Candidate& candidate : kept) {
    if (candidate.weight == 0) continue;
    token = candidate.token;
    sum += candidate.weight;
    if (sum > drawn) break;
  }
  return token;
}

}  // namespace

void SampleReference(const SampleParams& params) {
  for (int64_t row = 0; row < params.logits.rows; ++row) {
    const SampleRule& rule = params.rules[row];
    const float* logits = params.logits.f32(row);
    uint32_t token = Best(logits, params.logits.cols);
    if (token != kDamagedLogits && rule.temperature > 0) {
      token = Draw(rule, logits, params.logits.cols, logits[token]);
    }
    params.tokens[row] = token;
    if (params.last_tokens != nullptr) {
      params.last_tokens[rule.slot] = token == kDamagedLogits ? 0 : token;
    }
  }
}

}  // namespace troupe
