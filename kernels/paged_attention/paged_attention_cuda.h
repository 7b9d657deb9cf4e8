#ifndef TROUPE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_CUDA_H_
#define TROUPE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_CUDA_H_

#include "kernels/paged_attention/paged_attention.h"

namespace troupe {

struct CudaContext;

// Whether there is a kernel for keys and values of DType::kE4M3 of these sizes.
bool CodedAttentionTakes(int key_dim, int value_dim);

void PagedAttentionCuda(const PagedAttentionParams& params, const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_CUDA_H_
