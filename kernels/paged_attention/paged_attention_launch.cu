#include "kernels/cuda/attention_kernel.cuh"
#include "kernels/cuda/attention_units_launch.cuh"
#include "kernels/paged_attention/paged_attention_coded.cuh"
#include "kernels/paged_attention/paged_attention_cuda.h"

namespace troupe {

void PagedAttentionCuda(const PagedAttentionParams& params, const CudaContext& context) {
  CHECK_EQ(params.k.entries_per_page, kBlockTokens);
  AttentionParams attention = CommonAttention(params);
  attention.window = params.window;
  attention.sinks = params.sinks;
  const int64_t most_tiles = TilesOfTables(params.batch, params.tables, params.k.entries_per_page);
  if (params.k.dtype == DType::kE4M3) {
    PagedAttentionCoded(attention, most_tiles, context);
  } else if (UnitsTake<Seen::kWindow>(attention)) {
    LaunchUnitAttention<Seen::kWindow>(attention, most_tiles, context);
  } else {
    LaunchAttention<Seen::kWindow>(attention, most_tiles, context);
  }
}

}  // namespace troupe
