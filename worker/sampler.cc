#include "worker/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace troupe {
namespace {

using Candidate = std::pair<float, uint32_t>;

constexpr uint32_t kMaxLogprobs = 20;

bool Better(const Candidate& a, const Candidate& b) {
  return a.first != b.first ? a.first > b.first : a.second < b.second;
}

absl::Status OutOfRange(absl::string_view field, float found, absl::string_view wanted) {
  return absl::InvalidArgumentError(
      absl::StrCat("sampling.", field, ": found ", found, ", wanted ", wanted));
}

// The index of the largest logit; the error if a draw from them makes no sense.
absl::StatusOr<uint32_t> ArgMax(absl::Span<const float> logits) {
  uint32_t best = 0;
  for (uint32_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || logits[i] == std::numeric_limits<float>::infinity()) {
      return absl::InternalError(absl::StrCat("the logit of token ", i, " is ", logits[i],
                                              ", wanted a finite number: the model's weights or "
                                              "its state are damaged"));
    }
    if (logits[i] > logits[best]) best = i;
  }
  if (logits.empty() || std::isinf(logits[best])) {
    return absl::InternalError("no logit is finite: the model's weights or its state are damaged");
  }
  return best;
}

// Best first, the `count` best of all.
void SortBest(std::vector<Candidate>& candidates, size_t count) {
  count = std::min(count, candidates.size());
  std::partial_sort(candidates.begin(), candidates.begin() + count, candidates.end(), Better);
}

void KeepTopK(uint32_t k, std::vector<Candidate>& candidates) {
  if (k == 0 || k >= candidates.size()) return;
  std::nth_element(candidates.begin(), candidates.begin() + k, candidates.end(), Better);
  candidates.resize(k);
}

// The fewest best candidates that hold at least `top_p` of the weight.
void KeepTopP(float top_p, std::vector<Candidate>& candidates) {
  if (top_p >= 1) return;
  double total = 0;
  for (const Candidate& c : candidates) total += c.first;
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

void KeepMinP(float min_p, std::vector<Candidate>& candidates) {
  // The best weight is exp(0) = 1, so that min_p is the least weight to keep.
  if (min_p <= 0) return;
  candidates.erase(std::remove_if(candidates.begin(), candidates.end(),
                                  [min_p](const Candidate& c) { return c.first < min_p; }),
                   candidates.end());
}

uint32_t Draw(double uniform, const std::vector<Candidate>& candidates) {
  double total = 0;
  for (const Candidate& c : candidates) total += c.first;
  double left = uniform * total;
  for (const Candidate& c : candidates) {
    left -= c.first;
    if (left < 0) return c.second;
  }
  // Rounding may leave a remainder; it belongs to the last candidate that can be drawn.
  for (auto c = candidates.rbegin(); c != candidates.rend(); ++c) {
    if (c->first > 0) return c->second;
  }
  return candidates.front().second;
}

// Fills the log-probabilities of `token` and of the best tokens, from the model's own logits.
void FillTop(absl::Span<const float> logits, uint32_t count, float log_sum,
             std::vector<Candidate>& scratch, SampledToken& out) {
  scratch.clear();
  for (uint32_t i = 0; i < logits.size(); ++i) scratch.emplace_back(logits[i], i);
  SortBest(scratch, count);
  for (uint32_t i = 0; i < count && i < scratch.size(); ++i) {
    out.top.emplace_back(scratch[i].second, scratch[i].first - log_sum);
  }
}

float LogSumExp(absl::Span<const float> logits, float max) {
  double sum = 0;
  for (float l : logits) sum += std::exp(static_cast<double>(l) - max);
  return static_cast<float>(max + std::log(sum));
}

absl::StatusOr<uint32_t> Choose(const SamplingParams& params, uint64_t output_index,
                                absl::Span<const float> logits, SamplerScratch& scratch) {
  absl::StatusOr<uint32_t> best = ArgMax(logits);
  if (!best.ok() || params.temperature == 0) return best;
  std::vector<Candidate>& candidates = scratch.candidates;
  candidates.clear();
  const float max = logits[*best];
  for (uint32_t i = 0; i < logits.size(); ++i) {
    candidates.emplace_back(std::exp((logits[i] - max) / params.temperature), i);
  }
  KeepTopK(params.top_k, candidates);
  KeepTopP(params.top_p, candidates);
  KeepMinP(params.min_p, candidates);
  // Which candidate a draw meets first must not depend on how the filters left them.
  if (params.top_k != 0 || params.top_p < 1) {
    std::sort(candidates.begin(), candidates.end(),
              [](const Candidate& a, const Candidate& b) { return a.second < b.second; });
  }
  return Draw(UniformFor(params.seed, output_index), candidates);
}

}  // namespace

absl::Status ValidateSampling(const SamplingParams& p) {
  if (!(p.temperature >= 0 && p.temperature <= 100)) {
    return OutOfRange("temperature", p.temperature, "0 (greedy) to 100");
  }
  if (!(p.top_p > 0 && p.top_p <= 1)) return OutOfRange("top_p", p.top_p, "more than 0, at most 1");
  if (!(p.min_p >= 0 && p.min_p <= 1)) return OutOfRange("min_p", p.min_p, "0 to 1");
  if (!(p.repetition_penalty > 0 && p.repetition_penalty <= 100)) {
    return OutOfRange("repetition_penalty", p.repetition_penalty, "more than 0, at most 100");
  }
  if (!(std::abs(p.presence_penalty) <= 2)) {
    return OutOfRange("presence_penalty", p.presence_penalty, "-2 to 2");
  }
  if (!(std::abs(p.frequency_penalty) <= 2)) {
    return OutOfRange("frequency_penalty", p.frequency_penalty, "-2 to 2");
  }
  if (p.logprobs.value_or(0) > kMaxLogprobs) {
    return OutOfRange("logprobs", static_cast<float>(*p.logprobs), "0 to 20");
  }
  return absl::OkStatus();
}

void TokenCounts::AddPrompt(absl::Span<const uint32_t> tokens) {
  for (uint32_t token : tokens) counts_.try_emplace(token);
}

void TokenCounts::AddOutput(uint32_t token) { ++counts_[token].output; }

void ApplyPenalties(const SamplingParams& params, const TokenCounts& counts,
                    absl::Span<float> logits) {
  for (const auto& [token, count] : counts.counts_) {
    if (token >= logits.size()) continue;
    float& logit = logits[token];
    logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    if (count.output == 0) continue;
    logit -= params.presence_penalty + params.frequency_penalty * static_cast<float>(count.output);
  }
}

absl::StatusOr<SampledToken> Sample(const SamplingParams& params, const TokenCounts* counts,
                                    uint64_t output_index, absl::Span<float> logits,
                                    SamplerScratch& scratch) {
  SampledToken out;
  float log_sum = 0;
  if (params.logprobs.has_value()) {
    absl::StatusOr<uint32_t> best = ArgMax(logits);
    if (!best.ok()) return best.status();
    log_sum = LogSumExp(logits, logits[*best]);
    FillTop(logits, *params.logprobs, log_sum, scratch.candidates, out);
  }
  // The penalties overwrite the logits, and the token is not known yet.
  std::vector<float> raw;
  if (params.HasPenalties()) {
    CHECK(counts != nullptr);
    if (params.logprobs.has_value()) raw.assign(logits.begin(), logits.end());
    ApplyPenalties(params, *counts, logits);
  }
  absl::StatusOr<uint32_t> token = Choose(params, output_index, logits, scratch);
  if (!token.ok()) return token.status();
  out.token = *token;
  if (params.logprobs.has_value()) {
    out.logprob = (raw.empty() ? logits[*token] : raw[*token]) - log_sum;
  }
  return out;
}

double UniformFor(uint64_t seed, uint64_t index) {
  std::array<uint32_t, 4> x = {static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), 0,
                               0};
  auto k0 = static_cast<uint32_t>(seed);
  auto k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * x[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * x[2];
    x = {static_cast<uint32_t>(b >> 32) ^ x[1] ^ k0, static_cast<uint32_t>(b),
         static_cast<uint32_t>(a >> 32) ^ x[3] ^ k1, static_cast<uint32_t>(a)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  const uint64_t bits = (uint64_t{x[0]} << 32 | x[1]) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

}  // namespace troupe
