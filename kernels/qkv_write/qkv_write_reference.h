// The oracle of kernels/qkv_write/qkv_write.h: the operations that it stands for.
#ifndef TROUPE_KERNELS_QKV_WRITE_QKV_WRITE_REFERENCE_H_
#define TROUPE_KERNELS_QKV_WRITE_QKV_WRITE_REFERENCE_H_

#include "kernels/qkv_write/qkv_write.h"

namespace troupe {

void QkvWriteReference(const QkvWriteParams& params);

}  // namespace troupe

#endif  // TROUPE_KERNELS_QKV_WRITE_QKV_WRITE_REFERENCE_H_
