#ifndef TROUPE_KERNELS_QKV_WRITE_QKV_WRITE_CPU_H_
#define TROUPE_KERNELS_QKV_WRITE_QKV_WRITE_CPU_H_

#include "kernels/cpu_context.h"
#include "kernels/qkv_write/qkv_write.h"

namespace troupe {

void QkvWriteCpu(const QkvWriteParams& params, const CpuContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_QKV_WRITE_QKV_WRITE_CPU_H_
