#include "kernels/head_gate/head_gate_reference.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/check.h"

namespace troupe {
namespace {

float Sigmoid(float x) { return static_cast<float>(1 / (1 + std::exp(-static_cast<double>(x)))); }

std::vector<bool> OpenHeads(const std::vector<float>& gates, const GateRule& rule) {
  std::vector<bool> open;
  for (const float gate : gates) open.push_back(gate >= rule.threshold);
  if (rule.adaptive_mass <= 0) return open;

  std::vector<int> weakest_first(gates.size());
  std::iota(weakest_first.rbegin(), weakest_first.rend(), 0);
  std::stable_sort(weakest_first.begin(), weakest_first.end(),
                   [&](int a, int b) { return gates[a] < gates[b]; });
  const float budget = rule.adaptive_mass * std::accumulate(gates.begin(), gates.end(), 0.0F);
  float closed_mass = 0;
  for (const int head : weakest_first) {
    if (!open[head]) continue;
    closed_mass += gates[head];
    if (closed_mass > budget) break;
    open[head] = false;
  }
  return open;
}

}  // namespace

void HeadGateReference(const HeadGateParams& params) {
  CHECK_EQ(params.gate_logits.cols, params.heads);
  for (int64_t token = 0; token < params.batch.tokens; ++token) {
    const int row = params.batch.token_row[token];
    std::vector<float> gates(params.heads);
    for (int h = 0; h < params.heads; ++h) gates[h] = Sigmoid(params.gate_logits.f32(token)[h]);
    const std::vector<bool> open = OpenHeads(gates, params.rule[row]);
    const int branches = std::max(params.branches, 1);
    for (int h = 0; h < params.heads; ++h) {
      params.gates.f32(token)[h] = gates[h];
      params.closed[row] += open[h] ? 0 : 1;
      for (int c = 0; c < branches; ++c) {
        const int at = h * branches + c;
        const float branch =
            params.branches > 0 ? Sigmoid(params.branch_logits.f32(token)[at]) : 1.0F;
        params.factors.f32(token)[at] = open[h] ? gates[h] * branch : 0.0F;
      }
    }
  }
}

}  // namespace troupe
