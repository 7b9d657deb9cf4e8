#include "worker/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace troupe {
namespace {

constexpr uint32_t kMaxLogprobs = 20;

absl::Status OutOfRange(absl::string_view field, float found, absl::string_view wanted) {
  return absl::InvalidArgumentError(
      absl::StrCat("sampling.", field, ": found ", found, ", wanted ", wanted));
}

// Why no token can be chosen from logits that the kernel called damaged.
absl::Status Damage(absl::Span<const float> logits) {
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || logits[i] == std::numeric_limits<float>::infinity()) {
      return absl::InternalError(absl::StrCat("the logit of token ", i, " is ", logits[i],
                                              ", wanted a finite number: the model's weights or "
                                              "its state are damaged"));
    }
  }
  return absl::InternalError("no logit is finite: the model's weights or its state are damaged");
}

// Fills the log-probabilities of `token` and of the best tokens, from the model's own logits.
void FillTop(absl::Span<const float> logits, uint32_t count, float log_sum,
             std::vector<TokenCandidate>& scratch, SampledToken& out) {
  scratch.clear();
  for (uint32_t i = 0; i < logits.size(); ++i) scratch.emplace_back(logits[i], i);
  count = std::min(count, static_cast<uint32_t>(scratch.size()));
  std::partial_sort(scratch.begin(), scratch.begin() + count, scratch.end(), IsBetter);
  for (uint32_t i = 0; i < count; ++i) {
    out.top.emplace_back(scratch[i].second, scratch[i].first - log_sum);
  }
}

float LogSumExp(absl::Span<const float> logits, float max) {
  double sum = 0;
  for (float l : logits) sum += std::exp(static_cast<double>(l) - max);
  return static_cast<float>(max + std::log(sum));
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
    const uint32_t best = BestToken(logits);
    if (best == kDamagedLogits) return Damage(logits);
    log_sum = LogSumExp(logits, logits[best]);
    FillTop(logits, *params.logprobs, log_sum, scratch.candidates, out);
  }
  // The penalties overwrite the logits, and the token is not known yet.
  std::vector<float> raw;
  if (params.HasPenalties()) {
    CHECK(counts != nullptr);
    if (params.logprobs.has_value()) raw.assign(logits.begin(), logits.end());
    ApplyPenalties(params, *counts, logits);
  }
  out.token = ChooseToken(RuleOf(params, output_index), logits, scratch.candidates);
  if (out.token == kDamagedLogits) return Damage(logits);
  if (params.logprobs.has_value()) {
    out.logprob = (raw.empty() ? logits[out.token] : raw[out.token]) - log_sum;
  }
  return out;
}

}  // namespace troupe
