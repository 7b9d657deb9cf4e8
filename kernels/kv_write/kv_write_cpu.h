#ifndef TROUPE_KERNELS_KV_WRITE_KV_WRITE_CPU_H_
#define TROUPE_KERNELS_KV_WRITE_KV_WRITE_CPU_H_

#include "kernels/cpu_context.h"
#include "kernels/kv_write/kv_write.h"

namespace troupe {

void KvWriteCpu(const KvWriteParams& params, const CpuContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_KV_WRITE_KV_WRITE_CPU_H_
