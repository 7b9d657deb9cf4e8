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

}  // namespace

void CheckAttention(const BatchView& batch, int heads, const KvStream& k, const KvStream& v,
                    const Tensor& q, const Tensor& out) {
  CHECK_EQ(heads % k.kv_heads, 0);
  for (const KvStream* stream : {&k, &v}) {
    CHECK_GT(stream->head_dim, 0);
    CHECK_EQ(stream->kv_heads, k.kv_heads);
    CHECK(stream->dtype == k.dtype) << "keys and values of different dtypes";
    // A key block is whole pages, or part of one.
    CHECK(kKeyBlock % stream->entries_per_page == 0 || stream->entries_per_page % kKeyBlock == 0)
        << stream->entries_per_page << " entries a page";
  }
  for (const Tensor* tensor : {&q, &out}) {
    CHECK(tensor->dtype == DType::kF32);
    CHECK_EQ(tensor->rows, batch.tokens);
  }
  CHECK_EQ(q.cols, int64_t{heads} * k.head_dim);
  CHECK_EQ(out.cols, int64_t{heads} * v.head_dim);
}

std::vector<AttentionTile> ListTiles(const BatchView& batch, const VisibleEntries& visible,
                                     int kv_heads, int tile_tokens) {
  CHECK_GE(tile_tokens, 1);
  std::vector<AttentionTile> tiles;
  for (int row = 0; row < batch.rows; ++row) {
    const int end = batch.first[row + 1];
    // Tiles of one KV head follow one another: the next finds the keys in the cache.
    for (int kv_head = 0; kv_head < kv_heads; ++kv_head) {
      for (int token = batch.first[row]; token < end; token += tile_tokens) {
        const int tokens = std::min(tile_tokens, end - token);
        const int64_t position = batch.position[token];
        const int64_t first_block = visible.Begin(position) / kKeyBlock;
        const int64_t last_end = visible.End(position + tokens - 1);
        const int64_t end_block = std::max(first_block, (last_end + kKeyBlock - 1) / kKeyBlock);
        tiles.push_back({row, token, tokens, kv_head, first_block, end_block, 0, 0, 0});
      }
    }
  }
  return tiles;
}

int MostTokens(const std::vector<AttentionTile>& tiles) {
  int most = 0;
  for (const AttentionTile& tile : tiles) most = std::max(most, tile.tokens);
  return most;
}

AttentionPlan PlanAttention(const BatchView& batch, const AttentionPlanOptions& options) {
  AttentionPlan plan;
  plan.tiles = ListTiles(batch, options.visible, options.kv_heads, options.tile_tokens);
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
    tile.split_index = static_cast<int>(plan.split_tiles.size());
    plan.split_tiles.push_back(t);
  }
  return plan;
}

}  // namespace troupe
