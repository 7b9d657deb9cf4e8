#ifndef TROUPE_KERNELS_EMBED_EMBED_CPU_H_
#define TROUPE_KERNELS_EMBED_EMBED_CPU_H_

#include "kernels/cpu_context.h"
#include "kernels/embed/embed.h"

namespace troupe {

void EmbedCpu(const EmbedParams& params, const CpuContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_EMBED_EMBED_CPU_H_
