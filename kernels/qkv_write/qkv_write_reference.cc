#include "kernels/qkv_write/qkv_write_reference.h"

#include "base/check.h"
#include "kernels/head_norm_rope/head_norm_rope_reference.h"
#include "kernels/kv_write/kv_write_reference.h"

namespace troupe {

void QkvWriteReference(const QkvWriteParams& params) {
  CHECK(params.kv.k.data == params.k.x.data) << "other keys are written than rotated";
  HeadNormRopeReference(params.q);
  HeadNormRopeReference(params.k);
  KvWriteReference(params.kv);
}

}  // namespace troupe
