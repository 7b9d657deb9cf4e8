#ifndef TROUPE_KERNELS_NSA_ATTENTION_NSA_ATTENTION_CUDA_H_
#define TROUPE_KERNELS_NSA_ATTENTION_NSA_ATTENTION_CUDA_H_

#include "kernels/nsa_attention/nsa_attention.h"

namespace troupe {

struct CudaContext;

void NsaAttentionCuda(const NsaAttentionParams& params, const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_NSA_ATTENTION_NSA_ATTENTION_CUDA_H_
