// Runners of the operations on dense tensors.
#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "kernels/ops_test_cases.h"
#include "kernels/ops_test_weights.h"

namespace troupe {
namespace {

// Whether a random gate lies where rounding decides if it is open.
bool OnTheEdge(const float* logits, int heads, const GateRule& rule) {
  constexpr double kMargin = 1e-4;
  std::vector<double> open;
  double mass = 0;
  for (int h = 0; h < heads; ++h) {
    const double gate = 1 / (1 + std::exp(-double{logits[h]}));
    if (std::abs(gate - rule.threshold) < kMargin) return true;
    if (gate >= rule.threshold) open.push_back(gate);
    mass += gate;
  }
  std::sort(open.begin(), open.end());
  double closed_mass = 0;
  for (size_t i = 0; i < open.size(); ++i) {
    if (i > 0 && open[i] - open[i - 1] < kMargin) return true;
    closed_mass += open[i];
    if (std::abs(closed_mass - rule.adaptive_mass * mass) < kMargin) return true;
  }
  return false;
}

}  // namespace

Outputs RunEmbed(const EmbedCase& c, const Run& run) {
  TestRandom random(run.seed);
  const Tensor table = run.device.Put(RandomMatrix(c.vocabulary, c.hidden, random), c.dtype);
  std::vector<uint32_t> ids(TokensOf(run.sequences));
  for (uint32_t& id : ids) id = static_cast<uint32_t>(random() % c.vocabulary);
  const std::vector<uint32_t> last = ids;  // a slot for each token
  for (size_t i = 0; c.last_tokens && i < ids.size(); ++i) {
    if (random() % 2 == 0) ids[i] = kLastTokenOf | static_cast<uint32_t>(i);
  }
  TokenOutput out(run, "out", c.hidden, 0);  // one product at most
  for (const Step& step : run.steps) {
    const StepBatch batch =
        PutStep(run.device, run.sequences, std::vector<uint32_t>(run.sequences.size(), 0), step);
    std::vector<uint32_t> tokens;
    for (const int token : batch.tokens) tokens.push_back(ids[token]);
    const Tensor to = run.device.Put(RandomMatrix(batch.view.tokens, c.hidden, random));
    run.device.ops().Embed({.tokens = run.device.Put(tokens),
                            .table = table,
                            .out = to,
                            .scale = c.scale,
                            .last_tokens = c.last_tokens ? run.device.Put(last) : nullptr});
    out.Put(batch.tokens, run.device.Get(to).values);
  }
  return {out.output()};
}

Outputs RunRmsNorm(const RmsNormCase& c, const Run& run) {
  TestRandom random(run.seed);
  const Matrix x = RandomMatrix(TokensOf(run.sequences), c.hidden, random, 3);
  const Matrix before = RandomMatrix(TokensOf(run.sequences), c.hidden, random);
  const Tensor weight = run.device.Put(RandomMatrix(1, c.hidden, random));
  // Sums of squares of f32 in another order, then products of three.
  TokenOutput out(run, "out", c.hidden, 2e-6F);
  for (const Step& step : run.steps) {
    const StepBatch batch =
        PutStep(run.device, run.sequences, std::vector<uint32_t>(run.sequences.size(), 0), step);
    const Tensor from = run.device.Put(x.Pick(batch.tokens));
    const Tensor to = c.in_place ? from : run.device.Put(before.Pick(batch.tokens));
    run.device.ops().RmsNorm(
        {.x = from, .weight = weight, .eps = 1e-6F, .out = to, .accumulate = c.accumulate});
    out.Put(batch.tokens, run.device.Get(to).values);
  }
  return {out.output()};
}

Outputs RunLinear(const LinearCase& c, const Run& run) {
  TestRandom random(run.seed);
  const std::unique_ptr<PackedMatrix> w =
      PackRandom(c.parts, c.inputs, {.dtype = c.dtype, .precision = c.precision, .codes = c.codes},
                 run, random);
  const int64_t outputs = w->outputs();
  const Matrix x = RandomMatrix(TokensOf(run.sequences), c.inputs, random);
  const Matrix before = RandomMatrix(TokensOf(run.sequences), outputs, random);
  const float* bias = run.device.Put(RandomVector(outputs, random));
  const std::vector<float> norm_weight = RandomVector(c.inputs, random);
  // Inputs are rounded alike on both sides; what differs is an f32 sum of `inputs` products of
  // about one. Zeros make it the difference of sums that are larger.
  const bool zeros = c.codes.has_value() && c.codes->zeros;
  float tolerance = 1.2e-7F * static_cast<float>(c.inputs) * (zeros ? 8 : 2);
  // Weights of about one, each rounded by up to 2^-9 of itself: six standard deviations of the sum,
  // and sums are kept to the same digits.
  if (RoundsWeights(c.codes, c.precision, run)) {
    tolerance += 6 * 0x1p-9F * std::sqrt(static_cast<float>(c.inputs) / 3) * (zeros ? 2 : 1);
  }
  // Matrix units cut 32 products off at 2^-13 of the largest one, which is of about ten: as often
  // as there are 32 inputs, with any sign.
  if (c.precision == Precision::kFp8Groups && run.device.rounds_codes()) {
    tolerance += 6 * 10 * 0x1p-13F * std::sqrt(static_cast<float>(c.inputs));
  }
  // Norms whose last bits differ may be rounded to bf16 the other way: a few inputs of up to two.
  if (c.norm) tolerance += 0x1p-5F;
  TokenOutput out(run, "out", outputs, tolerance);
  for (const Step& step : run.steps) {
    const StepBatch batch =
        PutStep(run.device, run.sequences, std::vector<uint32_t>(run.sequences.size(), 0), step);
    const Tensor to = run.device.Put(before.Pick(batch.tokens));
    const NormedInput input = NormInput(run, c.norm, norm_weight, x.Pick(batch.tokens), 1e-6F);
    run.device.ops().Linear({.x = input.x,
                             .w = w.get(),
                             .out = to,
                             .accumulate = c.accumulate,
                             .bias = c.bias ? bias : nullptr,
                             .norm = input.norm});
    out.Put(batch.tokens, run.device.Get(to).values);
  }
  return {out.output()};
}

Outputs RunHeadNormRope(const HeadNormRopeCase& c, const Run& run) {
  TestRandom random(run.seed);
  const int64_t cols = int64_t{c.heads} * c.head_dim;
  const Matrix x = RandomMatrix(TokensOf(run.sequences), cols, random, 3);
  std::vector<float> frequency(c.head_dim / 2);
  for (size_t j = 0; j < frequency.size(); ++j) {
    frequency[j] =
        std::pow(10000.0F, -2.0F * static_cast<float>(j) / static_cast<float>(c.head_dim));
  }
  const float* weight = run.device.Put(RandomVector(c.head_dim, random, 1, 0.2F));
  const float* inverse_frequency = run.device.Put(frequency);
  // A few roundings of values of about three, of sines, and of angles reduced in f32.
  TokenOutput out(run, "out", cols, 4e-6F);
  for (const Step& step : run.steps) {
    const StepBatch batch =
        PutStep(run.device, run.sequences, std::vector<uint32_t>(run.sequences.size(), 0), step);
    const Tensor to = run.device.Put(x.Pick(batch.tokens));
    run.device.ops().HeadNormRope({.x = to,
                                   .heads = c.heads,
                                   .head_dim = c.head_dim,
                                   .norm_weight = c.norm ? weight : nullptr,
                                   .eps = 1e-6F,
                                   .inverse_frequency = c.rope ? inverse_frequency : nullptr,
                                   .position = batch.view.position,
                                   .first_rotated = c.first_rotated,
                                   .rotated_dims = c.rotated_dims,
                                   .interleaved = c.interleaved,
                                   .amplitude = c.amplitude});
    out.Put(batch.tokens, run.device.Get(to).values);
  }
  return {out.output()};
}

Outputs RunHeadGate(const HeadGateCase& c, const Run& run) {
  TestRandom random(run.seed);
  const int tokens = TokensOf(run.sequences);
  const int branches = std::max(c.branches, 1);
  Matrix logits = RandomMatrix(tokens, c.heads, random, 2);
  const Matrix branch_logits = RandomMatrix(tokens, int64_t{c.heads} * c.branches, random, 2);
  const auto rule_of = [&](size_t row) { return c.rules[row % c.rules.size()]; };
  for (size_t row = 0, token = 0; row < run.sequences.size(); ++row) {
    for (int i = 0; i < run.sequences[row].count; ++i, ++token) {
      while (OnTheEdge(logits.Row(token), c.heads, rule_of(row))) {
        std::ranges::copy(RandomVector(c.heads, random, 0, 2), logits.Row(token));
      }
    }
  }
  // Sigmoids within a few units in the last place.
  TokenOutput gates(run, "gates", c.heads, 1e-6F);
  TokenOutput factors(run, "factors", int64_t{c.heads} * branches, 1e-6F);
  Output closed{"closed", std::vector<float>(run.sequences.size(), 0)};
  for (const Step& step : run.steps) {
    const StepBatch batch =
        PutStep(run.device, run.sequences, std::vector<uint32_t>(run.sequences.size(), 0), step);
    std::vector<GateRule> rules;
    for (const int row : batch.rows) rules.push_back(rule_of(row));
    const std::vector<int32_t> before(batch.rows.size(), 5);
    int32_t* count = run.device.Put(before);
    const Tensor to_gates = run.device.Put(RandomMatrix(batch.view.tokens, c.heads, random));
    const Tensor to_factors =
        run.device.Put(RandomMatrix(batch.view.tokens, int64_t{c.heads} * branches, random));
    run.device.ops().HeadGate({.batch = batch.view,
                               .heads = c.heads,
                               .branches = c.branches,
                               .gate_logits = run.device.Put(logits.Pick(batch.tokens)),
                               .branch_logits = run.device.Put(branch_logits.Pick(batch.tokens)),
                               .rule = run.device.Put(rules),
                               .gates = to_gates,
                               .factors = to_factors,
                               .closed = count});
    gates.Put(batch.tokens, run.device.Get(to_gates).values);
    factors.Put(batch.tokens, run.device.Get(to_factors).values);
    const std::vector<int32_t> after = run.device.Get(count, before.size());
    for (size_t i = 0; i < after.size(); ++i) {
      closed.values[batch.rows[i]] += static_cast<float>(after[i] - before[i]);
    }
  }
  return {gates.output(), factors.output(), closed};
}

Outputs RunSwiglu(const SwigluCase& c, const Run& run) {
  TestRandom random(run.seed);
  const int64_t cols = c.gate_alone ? c.size : 2 * c.size;
  const Matrix x = RandomMatrix(TokensOf(run.sequences), cols, random, 3);
  // Relative: an exponential and two products; gelu's is of a sum that loses some digits.
  const bool gelu = c.activation.kind == ActivationKind::kGeluTanh;
  TokenOutput out(run, "out", c.size, gelu ? 4e-6F : 1e-6F);
  for (const Step& step : run.steps) {
    const StepBatch batch =
        PutStep(run.device, run.sequences, std::vector<uint32_t>(run.sequences.size(), 0), step);
    const Tensor to = run.device.Put(RandomMatrix(batch.view.tokens, c.size, random));
    run.device.ops().Swiglu(
        {.gate_up = run.device.Put(x.Pick(batch.tokens)), .out = to, .activation = c.activation});
    out.Put(batch.tokens, run.device.Get(to).values);
  }
  return {out.output()};
}

Outputs RunPageCopy(const Run& run) {
  TestRandom random(run.seed);
  constexpr int64_t kPageBytes = 4160;
  constexpr int kPages = 11;
  std::vector<std::byte> pages(kPageBytes * kPages);
  for (std::byte& byte : pages) byte = static_cast<std::byte>(random() & 0xff);
  std::vector<uint32_t> order(kPages);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random);
  std::byte* device_pages = run.device.Put(pages);
  for (const int count : {0, 1, 4}) {
    run.device.ops().PageCopy(
        {.pages = device_pages,
         .page_bytes = kPageBytes,
         .count = count,
         .from = run.device.Put(std::vector<uint32_t>(order.begin(), order.begin() + count)),
         .to =
             run.device.Put(std::vector<uint32_t>(order.begin() + 5, order.begin() + 5 + count))});
  }
  Output out{"pages", {}};
  for (const std::byte byte : run.device.Get(device_pages, pages.size())) {
    out.values.push_back(static_cast<float>(byte));
  }
  return {out};
}

}  // namespace troupe
