#include "kernels/qkv_write/qkv_write_cpu.h"

#include "base/check.h"
#include "kernels/head_norm_rope/head_norm_rope_cpu.h"
#include "kernels/kv_write/kv_write_cpu.h"

namespace troupe {

void QkvWriteCpu(const QkvWriteParams& params, const CpuContext& context) {
  CHECK(params.kv.k.data == params.k.x.data) << "other keys are written than rotated";
  HeadNormRopeCpu(params.q, context);
  HeadNormRopeCpu(params.k, context);
  KvWriteCpu(params.kv, context);
}

}  // namespace troupe
