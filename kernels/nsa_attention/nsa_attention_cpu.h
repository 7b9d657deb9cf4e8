#ifndef TROUPE_KERNELS_NSA_ATTENTION_NSA_ATTENTION_CPU_H_
#define TROUPE_KERNELS_NSA_ATTENTION_NSA_ATTENTION_CPU_H_

#include "kernels/cpu_context.h"
#include "kernels/nsa_attention/nsa_attention.h"

namespace troupe {

void NsaAttentionCpu(const NsaAttentionParams& params, const CpuContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_NSA_ATTENTION_NSA_ATTENTION_CPU_H_
