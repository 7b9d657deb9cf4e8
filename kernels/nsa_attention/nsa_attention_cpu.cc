#include "kernels/nsa_attention/nsa_attention_cpu.h"

#include "kernels/attention_plan.h"
#include "kernels/nsa_attention/nsa_attention_kernel.h"

namespace troupe {

void NsaAttentionCpu(const NsaAttentionParams& params, const CpuContext& context) {
  CheckAttention(params.batch, params.heads, params.k, params.v, params.q, params.out);
  const std::vector<AttentionTile> tiles =
      ListTiles(params.batch, VisibleEntries{}, params.k.kv_heads, kNsaTileTokens);
  const int rows = MostTokens(tiles) * (params.heads / params.k.kv_heads);
  const int64_t stride = TileScratchFloats(rows, params.k.head_dim, params.v.head_dim);
  float* scratch = context.scratch.Take<float>(context.pool.threads() * stride);
  context.pool.ParallelFor(tiles.size(), 1, [&](WorkRange range) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      kNsaAttentionTile[context.isa](params, tiles[i], scratch + range.worker * stride);
    }
  });
}

}  // namespace troupe
