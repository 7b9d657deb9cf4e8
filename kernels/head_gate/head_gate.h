// Per-head gates: which heads of a token run, and by what their results are scaled.
//
//     gate[t, h] = sigmoid(gate_logits[t, h])
//     open = gate >= threshold of the token's row
//     factor[t, h, c] = open ? gate * branch[t, h, c] : 0
//
// where branch is sigmoid(branch_logits[t, h * branches + c]), or one without branches. With an
// adaptive mass m, the weakest open heads close as well, as many as have gates that sum to at most
// m times the sum of all the gates; of equal gates, the last head closes first.
#ifndef TROUPE_KERNELS_HEAD_GATE_HEAD_GATE_H_
#define TROUPE_KERNELS_HEAD_GATE_HEAD_GATE_H_

#include "kernels/tensor.h"

namespace troupe {

struct GateRule {
  float threshold = 0;      // 0: every head is open
  float adaptive_mass = 0;  // 0: only the threshold decides
};

struct HeadGateParams {
  BatchView batch;
  int heads = 0;
  int branches = 0;                // 0: no branch gates, one factor a head
  Tensor gate_logits;              // [T, H] f32
  Tensor branch_logits;            // [T, H * branches] f32; unused without branches
  const GateRule* rule = nullptr;  // [R]
  Tensor gates;                    // [T, H] f32, out: before the rule
  Tensor factors;                  // [T, H * max(branches, 1)] f32, out
  int32_t* closed = nullptr;       // [R], out: added to, number of (token, head) that are closed
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_HEAD_GATE_HEAD_GATE_H_
