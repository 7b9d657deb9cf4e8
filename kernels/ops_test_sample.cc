// The runner of sample; see kernels/ops_test_cases.h.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/ops_test_cases.h"

namespace troupe {
namespace {

// Logits like a model's: most are small, some stand out.
Matrix RandomLogits(const SampleCase& c, int64_t rows, TestRandom& random) {
  Matrix logits = RandomMatrix(rows, c.vocabulary, random, c.spread);
  for (float& logit : logits.values) {
    if (random() % 100 == 0) logit += 5;
    if (c.ties) logit = std::round(logit);
  }
  return logits;
}

void Damage(Matrix& logits, TestRandom& random) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (int64_t row = 0; row < logits.rows; ++row) {
    float* values = logits.Row(row);
    float& one = values[random() % logits.cols];
    switch (random() % 5) {
      case 0:
        one = std::numeric_limits<float>::quiet_NaN();
        break;
      case 1:
        one = kInfinity;
        break;
      case 2:
        std::fill(values, values + logits.cols, -kInfinity);
        break;
      case 3:  // is none
        one = -kInfinity;
        break;
      default:
        break;
    }
  }
}

SampleRule RandomRule(const SampleCase& c, TestRandom& random) {
  const auto share = [&] { return static_cast<float>(random() % 997 + 1) / 1000.0F; };
  SampleRule rule;
  rule.seed = random();
  rule.output_index = random() % 5000;
  if (c.greedy || random() % 8 == 0) return rule;
  rule.temperature = 0.2F + 1.5F * share();
  if (c.top_k) rule.top_k = static_cast<uint32_t>(random() % (c.vocabulary + 3));
  if (c.top_p) rule.top_p = share();
  if (c.min_p) rule.min_p = share() * share();
  return rule;
}

}  // namespace

Outputs RunSample(const SampleCase& c, const Run& run) {
  TestRandom random(run.seed);
  const int tokens = TokensOf(run.sequences);
  Matrix logits = RandomLogits(c, tokens, random);
  if (c.damaged) Damage(logits, random);
  std::vector<SampleRule> rules;
  rules.reserve(tokens);
  for (int i = 0; i < tokens; ++i) rules.push_back(RandomRule(c, random));
  TokenOutput out(run, "token", 1, 0);
  TokenOutput last(run, "last token", 1, 0);
  for (const Step& step : run.steps) {
    const StepBatch batch =
        PutStep(run.device, run.sequences, std::vector<uint32_t>(run.sequences.size(), 0), step);
    std::vector<SampleRule> of_step;
    const std::vector<uint32_t> slots = RandomSlots(batch.tokens.size(), random);
    for (size_t i = 0; i < batch.tokens.size(); ++i) {
      of_step.push_back(rules[batch.tokens[i]]);
      of_step.back().slot = slots[i];
    }
    const size_t slot_count = slots.empty() ? 0 : *std::max_element(slots.begin(), slots.end()) + 1;
    auto* drawn = run.device.Put(std::vector<uint32_t>(of_step.size(), 77));
    auto* last_tokens = run.device.Put(std::vector<uint32_t>(slot_count, 77));
    run.device.ops().Sample({.logits = run.device.Put(logits.Pick(batch.tokens)),
                             .rules = run.device.Put(of_step),
                             .tokens = drawn,
                             .last_tokens = last_tokens});
    out.Put(batch.tokens, run.device.Get(drawn, of_step.size()));
    const std::vector<uint32_t> by_slot = run.device.Get(last_tokens, slot_count);
    std::vector<uint32_t> by_row;
    by_row.reserve(slots.size());
    for (const uint32_t slot : slots) by_row.push_back(by_slot[slot]);
    last.Put(batch.tokens, by_row);
  }
  return {out.output(), last.output()};
}

}  // namespace troupe
