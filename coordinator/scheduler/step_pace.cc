#include "coordinator/scheduler/step_pace.h"

#include <algorithm>

namespace troupe {
namespace {

constexpr double kWeight = 0.1;  // of the newest step
// Tokens that differ by less than this share of their mean say nothing about what one adds.
constexpr double kLeastSpread = 0.05;
// Of what a token is believed to add, after a step that did not show it.
constexpr double kForgetting = 0.99;
// The same after steps in which more tokens seemed to take no more time.
constexpr double kDisbelief = 0.5;

}  // namespace

void StepPaceMeter::Observe(uint32_t prefill_tokens, uint32_t decode_rows, uint64_t forward_us) {
  if (decode_rows == 0 || forward_us == 0) return;
  const double weight = seen_ ? kWeight : 1;
  seen_ = true;
  const double tokens = prefill_tokens;
  const auto us = static_cast<double>(forward_us);
  tokens_ += weight * (tokens - tokens_);
  us_ += weight * (us - us_);
  tokens_squared_ += weight * (tokens * tokens - tokens_squared_);
  tokens_us_ += weight * (tokens * us - tokens_us_);
  if (prefill_tokens == 0) return;

  const double variance = tokens_squared_ - tokens_ * tokens_;
  const double least = kLeastSpread * tokens_;
  if (variance <= least * least) {
    token_us_ *= kForgetting;
    return;
  }
  const double slope = (tokens_us_ - tokens_ * us_) / variance;
  token_us_ = slope > 0 ? slope : token_us_ * kDisbelief;
}

StepPace StepPaceMeter::pace() const {
  return {.decode_us = std::max(us_ - token_us_ * tokens_, 0.0),
          .token_us = token_us_,
          .tokens = tokens_};
}

}  // namespace troupe
