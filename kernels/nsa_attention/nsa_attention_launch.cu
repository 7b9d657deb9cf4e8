#include "kernels/cuda/attention_kernel.cuh"
#include "kernels/cuda/attention_units_launch.cuh"
#include "kernels/nsa_attention/nsa_attention_cuda.h"

namespace troupe {

void NsaAttentionCuda(const NsaAttentionParams& params, const CudaContext& context) {
  CHECK_EQ(params.k.entries_per_page, kBlockTokens);
  AttentionParams attention = CommonAttention(params);
  attention.selected = params.selected;
  attention.selected_blocks = params.selected_blocks;
  if (UnitsTake(attention)) {
    LaunchUnitAttention<Seen::kSelected>(attention, params.selected_blocks, context);
  } else {
    LaunchAttention<Seen::kSelected>(attention, params.selected_blocks, context);
  }
}

}  // namespace troupe
