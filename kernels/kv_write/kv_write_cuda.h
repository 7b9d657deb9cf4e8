#ifndef TROUPE_KERNELS_KV_WRITE_KV_WRITE_CUDA_H_
#define TROUPE_KERNELS_KV_WRITE_KV_WRITE_CUDA_H_

#include "kernels/kv_write/kv_write.h"

namespace troupe {

struct CudaContext;

void CheckKvWrite(const KvWriteParams& params);

void KvWriteCuda(const KvWriteParams& params, const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_KV_WRITE_KV_WRITE_CUDA_H_
