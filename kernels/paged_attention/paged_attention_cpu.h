#ifndef TROUPE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_CPU_H_
#define TROUPE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_CPU_H_

#include "kernels/cpu_context.h"
#include "kernels/paged_attention/paged_attention.h"

namespace troupe {

void PagedAttentionCpu(const PagedAttentionParams& params, const CpuContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_CPU_H_
