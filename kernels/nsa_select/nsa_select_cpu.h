#ifndef TROUPE_KERNELS_NSA_SELECT_NSA_SELECT_CPU_H_
#define TROUPE_KERNELS_NSA_SELECT_NSA_SELECT_CPU_H_

#include "kernels/cpu_context.h"
#include "kernels/nsa_select/nsa_select.h"

namespace troupe {

void NsaSelectCpu(const NsaSelectParams& params, const CpuContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_NSA_SELECT_NSA_SELECT_CPU_H_
