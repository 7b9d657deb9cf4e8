#ifndef TROUPE_KERNELS_SAMPLE_SAMPLE_CPU_H_
#define TROUPE_KERNELS_SAMPLE_SAMPLE_CPU_H_

#include "kernels/cpu_context.h"
#include "kernels/sample/sample.h"

namespace troupe {

void SampleCpu(const SampleParams& params, const CpuContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_SAMPLE_SAMPLE_CPU_H_
