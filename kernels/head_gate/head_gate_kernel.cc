#include "kernels/head_gate/head_gate_kernel.h"

#include "kernels/simd/simd.h"

namespace troupe::TROUPE_ISA {
namespace {

void Sigmoids(const float* from, float* to, int count) {
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) Store(to + i, Sigmoid(Load(from + i)));
  if (i < count) Store(to + i, Sigmoid(Load(from + i, count - i)), count - i);
}

// Closes the weakest open heads, of equals the last first, and returns how many.
// Heads are few, so that looking for each next one is as good as sorting.
int CloseWeakest(const float* gates, int heads, float mass, bool (&open)[kMaxGatedHeads]) {
  float budget = 0;
  for (int h = 0; h < heads; ++h) budget += gates[h];
  budget *= mass;
  float closed_mass = 0;
  for (int closed = 0;; ++closed) {
    int weakest = -1;
    for (int h = 0; h < heads; ++h) {
      if (open[h] && (weakest < 0 || gates[h] <= gates[weakest])) weakest = h;
    }
    if (weakest < 0) return closed;
    closed_mass += gates[weakest];
    if (closed_mass > budget) return closed;
    open[weakest] = false;
  }
}

int GateToken(const HeadGateParams& params, int64_t token, const GateRule& rule) {
  const int branches = params.branches > 0 ? params.branches : 1;
  float* gates = params.gates.f32(token);
  float* factors = params.factors.f32(token);
  Sigmoids(params.gate_logits.f32(token), gates, params.heads);
  if (params.branches > 0) {
    Sigmoids(params.branch_logits.f32(token), factors, params.heads * branches);
  }
  bool open[kMaxGatedHeads];
  int closed = 0;
  for (int h = 0; h < params.heads; ++h) {
    open[h] = gates[h] >= rule.threshold;
    closed += open[h] ? 0 : 1;
  }
  if (rule.adaptive_mass > 0) {
    closed += CloseWeakest(gates, params.heads, rule.adaptive_mass, open);
  }
  for (int h = 0; h < params.heads; ++h) {
    for (int c = h * branches; c < (h + 1) * branches; ++c) {
      const float branch = params.branches > 0 ? factors[c] : 1.0F;
      factors[c] = open[h] ? gates[h] * branch : 0.0F;
    }
  }
  return closed;
}

}  // namespace

void HeadGateTokens(const HeadGateParams& params, int64_t begin, int64_t end) {
  for (int64_t token = begin; token < end; ++token) {
    const int row = params.batch.token_row[token];
    const int closed = GateToken(params, token, params.rule[row]);
    if (closed > 0) __atomic_fetch_add(params.closed + row, closed, __ATOMIC_RELAXED);
  }
}

}  // namespace troupe::TROUPE_ISA
