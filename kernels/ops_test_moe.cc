// Runners of the router and the experts.
#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "kernels/ops_test_cases.h"
#include "kernels/ops_test_weights.h"

namespace troupe {

Outputs RunMoeRoute(const MoeRouteCase& c, const Run& run) {
  TestRandom random(run.seed);
  // Steps of 1/16, and biases that are equal or further apart than any two scores: experts tie
  // exactly, or differ clearly, on every device. So do sums of two: no logit is another's negative.
  Matrix logits = RandomMatrix(TokensOf(run.sequences), c.experts, random);
  for (float& value : logits.values) value = (std::round(value * 16) + 0.25F) / 16;
  std::vector<float> bias(c.experts);
  for (float& value : bias) value = -2.0F * static_cast<float>(random() % 2);
  // The same steps come out of small whole numbers, whose sums every order forms exactly.
  const auto whole = [&](int64_t rows, int most, float unit) {
    Matrix matrix = RandomMatrix(rows, c.inputs, random);
    for (float& value : matrix.values) {
      value = static_cast<float>(static_cast<int>(random() % (2 * most + 1)) - most) * unit;
    }
    return matrix;
  };
  Matrix x = whole(TokensOf(run.sequences), 2, 1);
  std::vector<float> norm_weight(c.inputs);
  if (c.norm) {
    // Rows whose root mean square is a power of two: norms are exact too.
    for (int64_t i = 0; i < static_cast<int64_t>(x.values.size()); ++i) {
      x.values[i] = (random() % 2 == 0 ? 1.0F : -1.0F) * (i / c.inputs % 2 == 0 ? 1.0F : 4.0F);
    }
    for (float& value : norm_weight) value = random() % 2 == 0 ? 1.0F : 0.5F;
  }
  std::unique_ptr<PackedMatrix> router;
  if (c.inputs > 0) {
    const Tensor values = run.device.Keep(whole(c.experts, 1, 1.0F / 16), c.router_dtype);
    router = run.device.ops().Pack({values}, Precision::kF32);
  }
  const float* router_bias = run.device.Put(std::vector<float>(c.experts, 0.25F / 16));
  TokenOutput experts(run, "experts", c.top_k, 0);
  TokenOutput weights(run, "weights", c.top_k, 1e-6F);
  int32_t* load = run.device.Put(std::vector<int32_t>(c.experts, 3));
  for (const Step& step : run.steps) {
    const StepBatch batch =
        PutStep(run.device, run.sequences, std::vector<uint32_t>(run.sequences.size(), 0), step);
    const size_t count = batch.tokens.size() * c.top_k;
    int32_t* to_experts = run.device.Put(std::vector<int32_t>(count));
    float* to_weights = run.device.Put(std::vector<float>(count));
    const NormedInput input = NormInput(run, c.norm, norm_weight, x.Pick(batch.tokens), 0);
    run.device.ops().MoeRoute({.x = input.x,
                               .router = router.get(),
                               .router_bias = router_bias,
                               .logits = run.device.Put(logits.Pick(batch.tokens)),
                               .bias = c.bias ? run.device.Put(bias) : nullptr,
                               .top_k = c.top_k,
                               .normalize = c.normalize,
                               .scale = 1.5F,
                               .experts = to_experts,
                               .weights = to_weights,
                               .load = load,
                               .scoring = c.scoring,
                               .group_score = c.group_score,
                               .groups = c.groups,
                               .groups_chosen = c.groups_chosen,
                               .norm = input.norm});
    experts.Put(batch.tokens, run.device.Get(to_experts, count));
    weights.Put(batch.tokens, run.device.Get(to_weights, count));
  }
  Output loads{"load", {}};
  for (const int32_t value : run.device.Get(load, c.experts)) {
    loads.values.push_back(static_cast<float>(value));
  }
  return {experts.output(), weights.output(), loads};
}

namespace {

// The experts of each token.
std::vector<int32_t> RandomChoice(const MoeExpertsCase& c, int tokens, TestRandom& random) {
  std::vector<int32_t> chosen;
  for (int token = 0; token < tokens; ++token) {
    std::vector<int32_t> order(c.experts);
    std::iota(order.begin(), order.end(), 0);
    // Low experts are popular, so that some serve many tokens and some none.
    std::shuffle(order.begin(), order.begin() + std::max(c.top_k, c.experts / 2), random);
    for (int k = 0; k < c.top_k; ++k) {
      const bool here = c.elsewhere == 0 || static_cast<int>(random() % 100) >= c.elsewhere;
      chosen.push_back(here ? order[k] : -1);
    }
  }
  return chosen;
}

float ExpertsTolerance(Precision precision) {
  // With bf16 a sum's rounding may move an inner value, of up to 4, by a bf16 unit (2^-6), whose
  // weight is three times 1 / sqrt(96) at most; and with integers by a unit of the largest one's
  // (of about 3) 127th part; and with FP8 by a unit of 2^-3 of itself, some of an output's at once.
  return precision == Precision::kBf16        ? 8e-3F
         : RoundsToIntegers(precision)        ? 2e-2F
         : precision == Precision::kFp8Groups ? 1.5e-1F
                                              : 1e-5F;
}

}  // namespace

Outputs RunMoeExperts(const MoeExpertsCase& c, const Run& run) {
  TestRandom random(run.seed);
  std::vector<std::unique_ptr<PackedMatrix>> matrices;
  const auto pack = [&](int64_t rows, int64_t cols) {
    // Scaled so that a layer's output is about as large as its input.
    const float scale = 1 / std::sqrt(static_cast<float>(cols));
    matrices.push_back(PackRandom({static_cast<int>(rows)}, cols,
                                  {c.dtype, c.precision, c.codes, scale}, run, random));
    return matrices.back().get();
  };
  std::vector<ExpertWeights> experts(c.experts + 1);
  for (ExpertWeights& expert : experts) {
    expert.gate_up = pack(2 * int64_t{c.size}, c.hidden);
    expert.down = pack(c.hidden, c.size);
    if (!c.bias) continue;
    expert.gate_up_bias = run.device.Put(RandomVector(2 * int64_t{c.size}, random));
    expert.down_bias = run.device.Put(RandomVector(c.hidden, random));
  }
  const auto list = run.device.ops().ListExperts(absl::MakeConstSpan(experts).first(c.experts));
  const int tokens = TokensOf(run.sequences);
  const Matrix x = RandomMatrix(tokens, c.hidden, random);
  const Matrix before = RandomMatrix(tokens, c.hidden, random);
  const std::vector<int32_t> chosen = RandomChoice(c, tokens, random);
  const std::vector<float> weights = RandomVector(int64_t{tokens} * c.top_k, random, 0.5F, 0.2F);
  const float tolerance = ExpertsTolerance(c.precision);
  // Results of about one, of weights that were rounded by up to 2^-9 of themselves. With zeros
  // three matrices' weights are larger, and results of up to 16 come out: 0.06 by rounding alone.
  const bool zeros = c.codes.has_value() && c.codes->zeros;
  const float rounded = RoundsWeights(c.codes, c.precision, run) ? (zeros ? 1e-1F : 2e-2F) : 0.0F;
  const std::vector<float> norm_weight = RandomVector(c.hidden, random);
  const float normed = c.norm ? 2e-2F : 0.0F;  // as for linear products
  // On a GPU an expert's result, of up to 4, and with a bias of up to 8, is rounded to bf16, which
  // moves it by 2^-7 or 2^-6; a token's weights are of up to one, and two may move alike.
  const bool rounds_results = c.precision == Precision::kBf16 && run.device.rounds_codes();
  const float results = rounds_results ? (c.bias ? 0x1p-5F : 0x1p-6F) : 0.0F;
  TokenOutput out(run, "out", c.hidden, tolerance + rounded + normed + results);
  for (const Step& step : run.steps) {
    const StepBatch batch =
        PutStep(run.device, run.sequences, std::vector<uint32_t>(run.sequences.size(), 0), step);
    std::vector<int32_t> step_chosen;
    std::vector<float> step_weights;
    for (const int token : batch.tokens) {
      for (int k = 0; k < c.top_k; ++k) {
        step_chosen.push_back(chosen[token * c.top_k + k]);
        step_weights.push_back(weights[token * c.top_k + k]);
      }
    }
    const Tensor to = run.device.Put(before.Pick(batch.tokens));
    const NormedInput input = NormInput(run, c.norm, norm_weight, x.Pick(batch.tokens), 1e-6F);
    run.device.ops().MoeExperts({.x = input.x,
                                 .experts = list.get(),
                                 .shared = c.shared ? &experts.back() : nullptr,
                                 .top_k = c.top_k,
                                 .chosen = run.device.Put(step_chosen),
                                 .weights = run.device.Put(step_weights),
                                 .out = to,
                                 .activation = c.activation,
                                 .accumulate = c.accumulate,
                                 .norm = input.norm});
    out.Put(batch.tokens, run.device.Get(to).values);
  }
  return {out.output()};
}

}  // namespace troupe
