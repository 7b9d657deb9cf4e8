#ifndef TROUPE_KERNELS_QKV_WRITE_QKV_WRITE_CUDA_H_
#define TROUPE_KERNELS_QKV_WRITE_QKV_WRITE_CUDA_H_

#include "kernels/qkv_write/qkv_write.h"

namespace troupe {

struct CudaContext;

void QkvWriteCuda(const QkvWriteParams& params, const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_QKV_WRITE_QKV_WRITE_CUDA_H_
