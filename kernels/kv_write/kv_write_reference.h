// The oracle of kernels/kv_write/kv_write.h: the formula as it is written there, slow and simple.
#ifndef TROUPE_KERNELS_KV_WRITE_KV_WRITE_REFERENCE_H_
#define TROUPE_KERNELS_KV_WRITE_KV_WRITE_REFERENCE_H_

#include "kernels/kv_write/kv_write.h"

namespace troupe {

void KvWriteReference(const KvWriteParams& params);

}  // namespace troupe

#endif  // TROUPE_KERNELS_KV_WRITE_KV_WRITE_REFERENCE_H_
