#include "kernels/attention_plan.h"

#include <algorithm>

#include "base/check.h"

namespace troupe {
namespace {

constexpr int64_t kSplitBlocks = kSplitEntries / kKeyBlock;
// Tasks a thread should have at least, for the load to level out.
constexpr int64_t kTasksPerThread = 4;

int64_t Cost(const AttentionTile& tile) {
  return (tile.end_block - tile.first_block) * tile.tokens;
}

std::vector<AttentionTile> Tiles(const BatchView& batch, const AttentionPlanOptions& options) {
  std::vector<AttentionTile> tiles;
  for (int row = 0; row < batch.rows; ++row) {
    // Tiles of one KV head follow one another: the next finds the keys in the cache.
    for (int kv_head = 0; kv_head < options.kv_heads; ++kv_head) {
      for (int token = batch.first[row]; token < batch.first[row + 1];
           token += options.tile_tokens) {
        const int tokens = std::min(options.tile_tokens, batch.first[row + 1] - token);
        const int64_t position = batch.start[row] + (token - batch.first[row]);
        const int64_t first_block = options.visible.Begin(position) / kKeyBlock;
        const int64_t end = options.visible.End(position + tokens - 1);
        const int64_t end_block = std::max(first_block, (end + kKeyBlock - 1) / kKeyBlock);
        tiles.push_back({row, token, tokens, kv_head, first_block, end_block});
      }
    }
  }
  return tiles;
}

}  // namespace

AttentionPlan PlanAttention(const BatchView& batch, const AttentionPlanOptions& options) {
  CHECK_GE(options.tile_tokens, 1);
  AttentionPlan plan;
  plan.tiles = Tiles(batch, options);
  int64_t cost = 0;
  for (const AttentionTile& tile : plan.tiles) cost += Cost(tile);
  const int64_t fair_cost = cost / (options.threads * kTasksPerThread);

  for (int t = 0; t < static_cast<int>(plan.tiles.size()); ++t) {
    AttentionTile& tile = plan.tiles[t];
    const int64_t first_split = tile.first_block / kSplitBlocks;
    const int64_t end_split = (tile.end_block + kSplitBlocks - 1) / kSplitBlocks;
    if (options.threads == 1 || end_split - first_split < 2 || Cost(tile) <= fair_cost) {
      plan.tasks.push_back({t, tile.first_block, tile.end_block, -1});
      continue;
    }
    tile.first_part = plan.parts;
    tile.parts = static_cast<int>(end_split - first_split);
    for (int64_t split = first_split; split < end_split; ++split) {
      plan.tasks.push_back({t, std::max(tile.first_block, split * kSplitBlocks),
                            std::min(tile.end_block, (split + 1) * kSplitBlocks), plan.parts++});
    }
    plan.split_tiles.push_back(t);
  }
  return plan;
}

}  // namespace troupe
