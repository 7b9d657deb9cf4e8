#include "kernels/paged_attention/paged_attention_cpu.h"

#include "kernels/attention_plan.h"
#include "kernels/paged_attention/paged_attention_kernel.h"

namespace troupe {
namespace {

// Enough queries for packing a block to be small beside using it; few enough for the caches.
constexpr int kTileTokens = 16;

}  // namespace

void PagedAttentionCpu(const PagedAttentionParams& params, const CpuContext& context) {
  CheckAttention(params.batch, params.heads, params.k, params.v, params.q, params.out);
  const AttentionPlan plan = PlanAttention(params.batch, {.visible = {.window = params.window},
                                                          .kv_heads = params.k.kv_heads,
                                                          .tile_tokens = kTileTokens,
                                                          .threads = context.pool.threads()});
  const int rows = MostTokens(plan.tiles) * (params.heads / params.k.kv_heads);
  const int64_t scratch_stride = TileScratchFloats(rows, params.k.head_dim, params.v.head_dim);
  const int64_t part_stride = PartFloats(rows, params.v.head_dim);
  float* scratch = context.scratch.Take<float>(context.pool.threads() * scratch_stride);
  float* parts = context.scratch.Take<float>(plan.parts * part_stride);

  context.pool.ParallelFor(plan.tasks.size(), 1, [&](WorkRange range) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      const AttentionTask& task = plan.tasks[i];
      kPagedAttentionTile[context.isa](params, plan.tiles[task.tile], task.first_block,
                                       task.end_block,
                                       task.part < 0 ? nullptr : parts + task.part * part_stride,
                                       scratch + range.worker * scratch_stride);
    }
  });
  context.pool.ParallelFor(plan.split_tiles.size(), 1, [&](WorkRange range) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      const AttentionTile& tile = plan.tiles[plan.split_tiles[i]];
      kPagedAttentionMerge[context.isa](params, tile, parts + tile.first_part * part_stride,
                                        part_stride, scratch + range.worker * scratch_stride);
    }
  });
}

}  // namespace troupe
