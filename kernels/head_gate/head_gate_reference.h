// The oracle of kernels/head_gate/head_gate.h: the formula as it is written there, slow and simple.
#ifndef TROUPE_KERNELS_HEAD_GATE_HEAD_GATE_REFERENCE_H_
#define TROUPE_KERNELS_HEAD_GATE_HEAD_GATE_REFERENCE_H_

#include "kernels/head_gate/head_gate.h"

namespace troupe {

void HeadGateReference(const HeadGateParams& params);

}  // namespace troupe

#endif  // TROUPE_KERNELS_HEAD_GATE_HEAD_GATE_REFERENCE_H_
