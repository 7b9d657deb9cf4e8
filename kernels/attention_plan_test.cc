#include "kernels/attention_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace troupe {
namespace {

// Sequences with `count` new tokens each after their `start`.
class Batch {
 public:
  Batch(const std::vector<int>& start, int count) {
    for (size_t row = 0; row < start.size(); ++row) {
      start_.push_back(start[row]);
      for (int i = 0; i < count; ++i) position_.push_back(start[row] + i);
      first_.push_back(static_cast<int32_t>(position_.size()));
    }
  }

  BatchView view() const {
    return {.rows = static_cast<int>(start_.size()),
            .tokens = static_cast<int>(position_.size()),
            .start = start_.data(),
            .first = first_.data(),
            .position = position_.data()};
  }

 private:
  std::vector<int32_t> start_;
  std::vector<int32_t> first_ = {0};
  std::vector<int32_t> position_;
};

// Every block of every tile belongs to exactly one task, and splits lie where they always do.
void ExpectComplete(const AttentionPlan& plan) {
  std::map<int, int64_t> next;
  std::map<int, int> parts;
  for (const AttentionTask& task : plan.tasks) {
    const AttentionTile& tile = plan.tiles[task.tile];
    const auto [at, is_first] = next.try_emplace(task.tile, tile.first_block);
    EXPECT_EQ(task.first_block, at->second);
    at->second = task.end_block;
    if (task.part < 0) continue;
    EXPECT_EQ(task.part, tile.first_part + parts[task.tile]++);
    EXPECT_EQ(task.first_block * kKeyBlock / kSplitEntries,
              (task.end_block * kKeyBlock - 1) / kSplitEntries);
  }
  ASSERT_EQ(next.size(), plan.tiles.size());
  for (const auto& [tile, end] : next) {
    EXPECT_EQ(end, plan.tiles[tile].end_block);
    EXPECT_EQ(parts[tile], plan.tiles[tile].parts);
  }
}

TEST(AttentionPlanTest, TilesCoverTheTokensOfEachKvHead) {
  const Batch batch({0, 100}, 37);
  const std::vector<AttentionTile> tiles = ListTiles(batch.view(), {}, 2, 16);
  ASSERT_EQ(tiles.size(), 2 * 2 * 3);
  EXPECT_EQ(MostTokens(tiles), 16);
  const AttentionTile& last = tiles.back();
  EXPECT_EQ(last.row, 1);
  EXPECT_EQ(last.kv_head, 1);
  EXPECT_EQ(last.first_token, 37 + 32);
  EXPECT_EQ(last.tokens, 5);
  EXPECT_EQ(last.first_block, 0);
  EXPECT_EQ(last.end_block, 136 / 64 + 1);
}

TEST(AttentionPlanTest, AWindowLeavesOutTheBlocksBehindIt) {
  const Batch batch({1000}, 16);
  const auto tiles = ListTiles(batch.view(), {.window = 256}, 1, 16);
  ASSERT_EQ(tiles.size(), 1);
  EXPECT_EQ(tiles[0].first_block, (1000 - 255) / 64);
  EXPECT_EQ(tiles[0].end_block, 1015 / 64 + 1);
}

TEST(AttentionPlanTest, CompressedEntriesAreFewer) {
  const VisibleEntries visible = {.stride = 16, .skip = 1};
  EXPECT_EQ(visible.End(30), 1);  // nothing before the first entry is complete
  EXPECT_EQ(visible.Begin(30), 1);
  EXPECT_EQ(visible.End(31), 2);
  const Batch batch({64 * 16 * 3 - 1}, 1);
  EXPECT_EQ(ListTiles(batch.view(), visible, 1, 1)[0].end_block, 3);
}

TEST(AttentionPlanTest, FewLongSequencesAreCutForTheThreads) {
  const Batch batch({40000, 10}, 1);
  const AttentionPlan plan = PlanAttention(batch.view(), {.kv_heads = 2, .threads = 8});
  ExpectComplete(plan);
  EXPECT_EQ(plan.split_tiles.size(), 2);
  EXPECT_EQ(plan.parts, 2 * (40000 / kSplitEntries + 1));
}

TEST(AttentionPlanTest, ManyEqualSequencesAreNot) {
  const Batch batch(std::vector<int>(64, 40000), 1);
  const AttentionPlan plan = PlanAttention(batch.view(), {.kv_heads = 2, .threads = 8});
  ExpectComplete(plan);
  EXPECT_EQ(plan.parts, 0);
  EXPECT_EQ(plan.tasks.size(), 128);
}

TEST(AttentionPlanTest, OneThreadNeverCuts) {
  const Batch batch({100000}, 1);
  const AttentionPlan plan = PlanAttention(batch.view(), {.threads = 1});
  ExpectComplete(plan);
  EXPECT_EQ(plan.parts, 0);
}

}  // namespace
}  // namespace troupe
