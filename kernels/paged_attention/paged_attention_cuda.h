#ifndef TROUPE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_CUDA_H_
#define TROUPE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_CUDA_H_

#include "kernels/paged_attention/paged_attention.h"

namespace troupe {

struct CudaContext;

void PagedAttentionCuda(const PagedAttentionParams& params, const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_CUDA_H_
