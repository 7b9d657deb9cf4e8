#include <algorithm>

#include "kernels/cuda/attention_kernel.cuh"
#include "kernels/paged_attention/paged_attention_cuda.h"

namespace troupe {

void PagedAttentionCuda(const PagedAttentionParams& params, const CudaContext& context) {
  CHECK_EQ(params.k.entries_per_page, kBlockTokens);
  AttentionParams attention = CommonAttention(params);
  attention.window = params.window;
  attention.sinks = params.sinks;
  LaunchAttention<Seen::kWindow>(
      attention, TilesOfTables(params.batch, params.tables, params.k.entries_per_page), context);
}

}  // namespace troupe
