// Runners of the operations that ranks of one model need to share its work.
#include <algorithm>
#include <numeric>

#include "kernels/ops_test_cases.h"

namespace troupe {

Outputs RunSquareSums(const SquareSumsCase& c, const Run& run) {
  TestRandom random(run.seed);
  const Matrix x = RandomMatrix(TokensOf(run.sequences), c.hidden, random, 3);
  TokenOutput out(run, "sums", 1, 2e-6F);
  for (const Step& step : run.steps) {
    const StepBatch batch =
        PutStep(run.device, run.sequences, std::vector<uint32_t>(run.sequences.size(), 0), step);
    float* sums = run.device.Put(std::vector<float>(batch.tokens.size(), -1));
    run.device.ops().SquareSums({.x = run.device.Put(x.Pick(batch.tokens)), .sums = sums});
    out.Put(batch.tokens, run.device.Get(sums, batch.tokens.size()));
  }
  return {out.output()};
}

// Two ranks' parts of each row, normed by sums over both.
Outputs RunRmsNormParts(const SquareSumsCase& c, const Run& run) {
  TestRandom random(run.seed);
  const int tokens = TokensOf(run.sequences);
  const Matrix part = RandomMatrix(tokens, c.hidden, random, 3);
  std::vector<float> whole_sums(tokens);
  for (float& sum : whole_sums) sum = 1 + 9 * static_cast<float>(random() % 1000);
  const Tensor weight = run.device.Put(RandomMatrix(1, c.hidden, random));
  TokenOutput out(run, "out", c.hidden, 2e-6F);
  for (const Step& step : run.steps) {
    const StepBatch batch =
        PutStep(run.device, run.sequences, std::vector<uint32_t>(run.sequences.size(), 0), step);
    std::vector<float> sums;
    for (const int token : batch.tokens) sums.push_back(whole_sums[token]);
    const Tensor x = run.device.Put(part.Pick(batch.tokens));
    run.device.ops().RmsNorm({.x = x,
                              .weight = weight,
                              .eps = 1e-6F,
                              .out = x,
                              .square_sums = run.device.Put(sums),
                              .parts = 2});
    out.Put(batch.tokens, run.device.Get(x).values);
  }
  return {out.output()};
}

// Every second token's row, the last first, is added to where it belongs.
Outputs RunRowAdd(const RowAddCase& c, const Run& run) {
  TestRandom random(run.seed);
  const Matrix x = RandomMatrix(TokensOf(run.sequences), c.hidden, random);
  const Matrix before = RandomMatrix(TokensOf(run.sequences), c.hidden, random);
  TokenOutput out(run, "out", c.hidden, 0);  // one sum
  for (const Step& step : run.steps) {
    const StepBatch batch =
        PutStep(run.device, run.sequences, std::vector<uint32_t>(run.sequences.size(), 0), step);
    std::vector<int32_t> rows;
    std::vector<int> tokens;
    for (int row = static_cast<int>(batch.tokens.size()) - 1; row >= 0; --row) {
      if (batch.tokens[row] % 2 == 0) continue;
      rows.push_back(row);
      tokens.push_back(batch.tokens[row]);
    }
    const Tensor to = run.device.Put(before.Pick(batch.tokens));
    if (!rows.empty()) {
      run.device.ops().RowAdd(
          {.x = run.device.Put(x.Pick(tokens)), .row = run.device.Put(rows), .out = to});
    }
    out.Put(batch.tokens, run.device.Get(to).values);
  }
  return {out.output()};
}

Outputs RunMoeAssign(const MoeAssignCase& c, const Run& run) {
  TestRandom random(run.seed);
  std::vector<int32_t> begin = {0};
  std::vector<int32_t> local;
  for (int e = 0; e < c.experts; ++e) {
    begin.push_back(begin.back() + 1 + static_cast<int32_t>(random() % c.most_copies));
    while (local.size() < static_cast<size_t>(begin.back())) {
      local.push_back(random() % 2 == 0 ? static_cast<int32_t>(local.size()) : -1);
    }
  }
  const int tokens = TokensOf(run.sequences);
  std::vector<int32_t> chosen(static_cast<size_t>(tokens) * c.top_k);
  for (int32_t& expert : chosen) expert = static_cast<int32_t>(random() % c.experts);
  TokenOutput out(run, "assigned", c.top_k, 0);
  for (const Step& step : run.steps) {
    const StepBatch batch =
        PutStep(run.device, run.sequences, std::vector<uint32_t>(run.sequences.size(), 0), step);
    std::vector<int32_t> step_chosen;
    for (const int token : batch.tokens) {
      for (int k = 0; k < c.top_k; ++k) step_chosen.push_back(chosen[token * c.top_k + k]);
    }
    int32_t* assigned = run.device.Put(std::vector<int32_t>(step_chosen.size(), -2));
    run.device.ops().MoeAssign({.tokens = batch.view.tokens,
                                .top_k = c.top_k,
                                .chosen = run.device.Put(step_chosen),
                                .position = batch.view.position,
                                .begin = run.device.Put(begin),
                                .local = run.device.Put(local),
                                .assigned = assigned});
    out.Put(batch.tokens, run.device.Get(assigned, step_chosen.size()));
  }
  return {out.output()};
}

}  // namespace troupe
