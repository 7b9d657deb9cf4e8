#include "kernels/nsa_select/nsa_select_cpu.h"

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "kernels/attention_plan.h"
#include "kernels/nsa_select/nsa_select_kernel.h"

namespace troupe {
namespace {

constexpr int kMostTileTokens = 16;
// Scores of a tile, which are written once and read once, should stay in a core's own cache.
constexpr int64_t kScoreFloats = 128 * 1024;

int64_t MostEntries(const BatchView& batch, const VisibleEntries& visible) {
  int64_t most = 0;
  for (int row = 0; row < batch.rows; ++row) {
    const int tokens = batch.first[row + 1] - batch.first[row];
    most = std::max(most, visible.End(batch.start[row] + tokens - 1));
  }
  return most;
}

void CheckSizes(const NsaSelectParams& params) {
  const NsaSizes& sizes = params.sizes;
  CHECK_EQ(sizes.compress_block % sizes.compress_stride, 0);
  CHECK_EQ(kBlockTokens % sizes.compress_stride, 0);
  CHECK_LE(sizes.compress_block, kBlockTokens);
  CHECK_LE(sizes.initial_blocks + sizes.local_blocks, sizes.selected_blocks);
  CHECK_LE(sizes.selected_blocks, kMaxSelectedBlocks);
  CHECK_LE(params.heads / params.k.kv_heads, kMaxGroupHeads);
}

}  // namespace

void NsaSelectCpu(const NsaSelectParams& params, const CpuContext& context) {
  CheckAttention(params.batch, params.heads, params.k, params.v, params.q, params.out);
  CheckSizes(params);
  const VisibleEntries visible = CompressedEntries(params.sizes);
  const int group = params.heads / params.k.kv_heads;
  const int64_t entries = MostEntries(params.batch, visible);
  const int64_t score_stride = (entries + kKeyBlock - 1) / kKeyBlock * kKeyBlock;
  const int tile_tokens = static_cast<int>(std::clamp<int64_t>(
      kScoreFloats / std::max<int64_t>(group * score_stride, 1), 1, kMostTileTokens));

  const AttentionPlan plan = PlanAttention(params.batch, {.visible = visible,
                                                          .kv_heads = params.k.kv_heads,
                                                          .tile_tokens = tile_tokens,
                                                          .threads = context.pool.threads()});
  const int rows = MostTokens(plan.tiles) * group;
  const int64_t scratch_stride = NsaSelectScratchFloats(params.sizes, rows, params.k.head_dim,
                                                        params.v.head_dim, score_stride);
  const int64_t part_stride = PartFloats(rows, params.v.head_dim);
  const int64_t tile_scores = rows * score_stride;
  float* scratch = context.scratch.Take<float>(context.pool.threads() * scratch_stride);
  float* parts = context.scratch.Take<float>(plan.parts * part_stride);
  // A thread's own for whole tiles; one a tile for those whose splits several threads score.
  float* thread_scores = context.scratch.Take<float>(context.pool.threads() * tile_scores);
  float* split_scores = context.scratch.Take<float>(plan.split_tiles.size() * tile_scores);
  const auto scores_of = [&](const AttentionTile& tile, int worker) {
    return NsaScores{tile.parts > 0 ? split_scores + tile.split_index * tile_scores
                                    : thread_scores + worker * tile_scores,
                     score_stride};
  };

  context.pool.ParallelFor(plan.tasks.size(), 1, [&](WorkRange range) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      const AttentionTask& task = plan.tasks[i];
      const AttentionTile& tile = plan.tiles[task.tile];
      kNsaSelectTile[context.isa](params, tile, task.first_block, task.end_block,
                                  task.part < 0 ? nullptr : parts + task.part * part_stride,
                                  scores_of(tile, range.worker),
                                  scratch + range.worker * scratch_stride);
    }
  });
  context.pool.ParallelFor(plan.split_tiles.size(), 1, [&](WorkRange range) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      const AttentionTile& tile = plan.tiles[plan.split_tiles[i]];
      kNsaSelectMerge[context.isa](params, tile, parts + tile.first_part * part_stride, part_stride,
                                   scores_of(tile, range.worker),
                                   scratch + range.worker * scratch_stride);
    }
  });
}

}  // namespace troupe
