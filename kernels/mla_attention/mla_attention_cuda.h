#ifndef TROUPE_KERNELS_MLA_ATTENTION_MLA_ATTENTION_CUDA_H_
#define TROUPE_KERNELS_MLA_ATTENTION_MLA_ATTENTION_CUDA_H_

#include "kernels/mla_attention/mla_attention.h"

namespace troupe {

struct CudaContext;

void MlaAttentionCuda(const MlaAttentionParams& params, const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_MLA_ATTENTION_MLA_ATTENTION_CUDA_H_
