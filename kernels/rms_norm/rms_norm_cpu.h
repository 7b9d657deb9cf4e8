#ifndef TROUPE_KERNELS_RMS_NORM_RMS_NORM_CPU_H_
#define TROUPE_KERNELS_RMS_NORM_RMS_NORM_CPU_H_

#include "kernels/cpu_context.h"
#include "kernels/rms_norm/rms_norm.h"

namespace troupe {

void RmsNormCpu(const RmsNormParams& params, const CpuContext& context);
void SquareSumsCpu(const SquareSumsParams& params, const CpuContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_RMS_NORM_RMS_NORM_CPU_H_
