// Device code of kernels/head_gate/head_gate.h: one block a token.
#ifndef TROUPE_KERNELS_HEAD_GATE_HEAD_GATE_CUH_
#define TROUPE_KERNELS_HEAD_GATE_HEAD_GATE_CUH_

#include "kernels/cuda/math.cuh"
#include "kernels/head_gate/head_gate.h"

namespace troupe {

inline constexpr int kHeadGateThreads = 64;

// Closes the weakest of the open heads, as many as the adaptive rule affords. Sums run head by
// head, in the order in which the reference forms them. `order` has room for every head.
inline __device__ void CloseWeakest(const float* gates, int heads, float adaptive_mass, int* open,
                                    int* order) {
  __shared__ int open_heads;
  if (threadIdx.x == 0) open_heads = 0;
  __syncthreads();
  for (int h = static_cast<int>(threadIdx.x); h < heads; h += kHeadGateThreads) {
    if (open[h] == 0) continue;
    int weaker = 0;
    for (int other = 0; other < heads; ++other) {
      if (open[other] == 0) continue;
      weaker += gates[other] < gates[h] || (gates[other] == gates[h] && other > h) ? 1 : 0;
    }
    order[weaker] = h;
    atomicAdd(&open_heads, 1);
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  float mass = 0;
  for (int h = 0; h < heads; ++h) mass = __fadd_rn(mass, gates[h]);
  const float budget = __fmul_rn(adaptive_mass, mass);
  float closed_mass = 0;
  for (int i = 0; i < open_heads; ++i) {
    closed_mass = __fadd_rn(closed_mass, gates[order[i]]);
    if (closed_mass > budget) break;
    open[order[i]] = 0;
  }
}

// Dynamic shared memory: three numbers a head.
__global__ void __launch_bounds__(kHeadGateThreads) HeadGateKernel(HeadGateParams params) {
  extern __shared__ float shared[];
  float* gates = shared;
  int* open = reinterpret_cast<int*>(gates + params.heads);
  int* order = open + params.heads;
  const int64_t token = blockIdx.x;
  const int row = params.batch.token_row[token];
  const GateRule rule = params.rule[row];
  const float* logits =
      static_cast<const float*>(params.gate_logits.data) + token * params.gate_logits.stride;
  float* to_gates = static_cast<float*>(params.gates.data) + token * params.gates.stride;
  for (int h = static_cast<int>(threadIdx.x); h < params.heads; h += kHeadGateThreads) {
    gates[h] = to_gates[h] = Sigmoid(logits[h]);
    open[h] = gates[h] >= rule.threshold ? 1 : 0;
  }
  __syncthreads();
  if (rule.adaptive_mass > 0) {
    CloseWeakest(gates, params.heads, rule.adaptive_mass, open, order);
    __syncthreads();
  }
  const float* branch_logits =
      static_cast<const float*>(params.branch_logits.data) + token * params.branch_logits.stride;
  float* factors = static_cast<float*>(params.factors.data) + token * params.factors.stride;
  const int branches = params.branches > 0 ? params.branches : 1;
  int closed = 0;
  for (int h = static_cast<int>(threadIdx.x); h < params.heads; h += kHeadGateThreads) {
    closed += open[h] == 0 ? 1 : 0;
    for (int c = 0; c < branches; ++c) {
      const int at = h * branches + c;
      const float branch = params.branches > 0 ? Sigmoid(branch_logits[at]) : 1.0F;
      factors[at] = open[h] != 0 ? gates[h] * branch : 0.0F;
    }
  }
  if (closed > 0) atomicAdd(params.closed + row, closed);
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_HEAD_GATE_HEAD_GATE_CUH_
