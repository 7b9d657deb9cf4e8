#ifndef TROUPE_KERNELS_HEAD_GATE_HEAD_GATE_CPU_H_
#define TROUPE_KERNELS_HEAD_GATE_HEAD_GATE_CPU_H_

#include "kernels/cpu_context.h"
#include "kernels/head_gate/head_gate.h"

namespace troupe {

void HeadGateCpu(const HeadGateParams& params, const CpuContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_HEAD_GATE_HEAD_GATE_CPU_H_
