#ifndef TROUPE_KERNELS_NSA_COMPRESS_NSA_COMPRESS_CUDA_H_
#define TROUPE_KERNELS_NSA_COMPRESS_NSA_COMPRESS_CUDA_H_

#include "kernels/nsa_compress/nsa_compress.h"

namespace troupe {

struct CudaContext;

void NsaCompressCuda(const NsaCompressParams& params, const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_NSA_COMPRESS_NSA_COMPRESS_CUDA_H_
