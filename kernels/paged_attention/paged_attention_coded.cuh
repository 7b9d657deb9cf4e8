// Paged attention over keys and values in FP8 (kernels/cuda/attention_codes.cuh), whose kernels are
// compiled apart.
#ifndef TROUPE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_CODED_CUH_
#define TROUPE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_CODED_CUH_

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/context.cuh"
#include "kernels/paged_attention/paged_attention_cuda.h"

namespace troupe {

// Requires CodedAttentionTakes. `most_tiles`: that any token sees.
void PagedAttentionCoded(const AttentionParams& attention, int64_t most_tiles,
                         const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_CODED_CUH_
