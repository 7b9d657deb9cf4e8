#ifndef TROUPE_KERNELS_SWIGLU_SWIGLU_CPU_H_
#define TROUPE_KERNELS_SWIGLU_SWIGLU_CPU_H_

#include "kernels/cpu_context.h"
#include "kernels/swiglu/swiglu.h"

namespace troupe {

void SwigluCpu(const SwigluParams& params, const CpuContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_SWIGLU_SWIGLU_CPU_H_
