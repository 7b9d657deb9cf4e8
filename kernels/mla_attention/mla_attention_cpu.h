#ifndef TROUPE_KERNELS_MLA_ATTENTION_MLA_ATTENTION_CPU_H_
#define TROUPE_KERNELS_MLA_ATTENTION_MLA_ATTENTION_CPU_H_

#include "kernels/cpu_context.h"
#include "kernels/mla_attention/mla_attention.h"

namespace troupe {

void MlaAttentionCpu(const MlaAttentionParams& params, const CpuContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_MLA_ATTENTION_MLA_ATTENTION_CPU_H_
