#include "kernels/sample/choose_token.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace troupe {
namespace {

// Best first, the `count` best of all.
void SortBest(std::vector<TokenCandidate>& candidates, size_t count) {
  count = std::min(count, candidates.size());
  std::partial_sort(candidates.begin(), candidates.begin() + count, candidates.end(), IsBetter);
}

void KeepTopK(uint32_t k, std::vector<TokenCandidate>& candidates) {
  if (k == 0 || k >= candidates.size()) return;
  std::nth_element(candidates.begin(), candidates.begin() + k, candidates.end(), IsBetter);
  candidates.resize(k);
}

// The fewest best candidates that hold at least `top_p` of the weight.
void KeepTopP(float top_p, std::vector<TokenCandidate>& candidates) {
  if (top_p >= 1) return;
  double total = 0;
  for (const TokenCandidate& c : candidates) total += c.first;
  double sum = 0;
  size_t kept = 0;
  size_t sorted = 0;
  while (kept < candidates.size()) {
    if (kept == sorted) {
      sorted = std::min(candidates.size(), std::max<size_t>(64, sorted * 4));
      SortBest(candidates, sorted);
    }
    sum += candidates[kept++].first;
    if (sum >= top_p * total) break;
  }
  candidates.resize(kept);
}

void KeepMinP(float min_p, std::vector<TokenCandidate>& candidates) {
  // The best weight is exp(0) = 1, so that min_p is the least weight to keep.
  if (min_p <= 0) return;
  candidates.erase(std::remove_if(candidates.begin(), candidates.end(),
                                  [min_p](const TokenCandidate& c) { return c.first < min_p; }),
                   candidates.end());
}

uint32_t Draw(double uniform, const std::vector<TokenCandidate>& candidates) {
  double total = 0;
  for (const TokenCandidate& c : candidates) total += c.first;
  double left = uniform * total;
  for (const TokenCandidate& c : candidates) {
    left -= c.first;
    if (left < 0) return c.second;
  }
  // Rounding may leave a remainder; it belongs to the last candidate that can be drawn.
  for (auto c = candidates.rbegin(); c != candidates.rend(); ++c) {
    if (c->first > 0) return c->second;
  }
  return candidates.front().second;
}

}  // namespace

uint32_t BestToken(absl::Span<const float> logits) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  uint32_t best = 0;
  for (uint32_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || logits[i] == kInfinity) return kDamagedLogits;
    if (logits[i] > logits[best]) best = i;
  }
  return logits.empty() || std::isinf(logits[best]) ? kDamagedLogits : best;
}

uint32_t ChooseToken(const SampleRule& rule, absl::Span<const float> logits,
                     std::vector<TokenCandidate>& candidates) {
  const uint32_t best = BestToken(logits);
  if (best == kDamagedLogits || rule.temperature == 0) return best;
  candidates.clear();
  const float max = logits[best];
  for (uint32_t i = 0; i < logits.size(); ++i) {
    candidates.emplace_back(std::exp((logits[i] - max) / rule.temperature), i);
  }
  KeepTopK(rule.top_k, candidates);
  KeepTopP(rule.top_p, candidates);
  KeepMinP(rule.min_p, candidates);
  // Which candidate a draw meets first must not depend on how the filters left them.
  if (rule.top_k != 0 || rule.top_p < 1) {
    std::sort(candidates.begin(), candidates.end(),
              [](const TokenCandidate& a, const TokenCandidate& b) { return a.second < b.second; });
  }
  return Draw(Uniform01(rule.seed, rule.output_index), candidates);
}

}  // namespace troupe
