// What CUDA launches choose, without a GPU.
#include <gtest/gtest.h>

#include <random>
#include <utility>
#include <vector>

#include "kernels/cuda/attention_choice.h"
#include "kernels/linear/linear_choice.h"
#include "kernels/linear/stream_choice.h"
#include "kernels/moe_experts/moe_experts_choice.h"

namespace troupe {
namespace {

constexpr int kMultiprocessors = 132;

TEST(ChooseAttentionTest, CutsTheContextOnlyWhereTokensAreFew) {
  AttentionShape shape = {.tokens = 1,
                          .kv_heads = 4,
                          .group_heads = 8,
                          .most_tiles = 128,
                          .key_dim = 128,
                          .value_dim = 128,
                          .element_bytes = 2};
  EXPECT_EQ(ChooseAttention(shape, kMultiprocessors).parts, 16);
  shape.tokens = 64;
  EXPECT_EQ(ChooseAttention(shape, kMultiprocessors).parts, 16);
  shape.tokens = 66;
  EXPECT_EQ(ChooseAttention(shape, kMultiprocessors).parts, 1);
}

TEST(ChooseAttentionTest, ABlockHasAtMostEightHeads) {
  const AttentionShape shape = {.tokens = 1,
                                .kv_heads = 1,
                                .group_heads = 17,
                                .most_tiles = 1,
                                .key_dim = 64,
                                .value_dim = 64,
                                .element_bytes = 4};
  EXPECT_EQ(ChooseAttention(shape, kMultiprocessors).slices, 3);
}

TEST(ChooseAttentionTest, LargeHeadsGetOneTileAtATimeAndTooLargeOnesNone) {
  AttentionShape shape = {.tokens = 1,
                          .kv_heads = 1,
                          .group_heads = 1,
                          .most_tiles = 1,
                          .key_dim = 256,
                          .value_dim = 256,
                          .element_bytes = 4};
  EXPECT_EQ(ChooseAttention(shape, kMultiprocessors).stages, 1);
  shape.element_bytes = 2;
  EXPECT_EQ(ChooseAttention(shape, kMultiprocessors).stages, 1);
  shape.key_dim = shape.value_dim = 128;
  EXPECT_EQ(ChooseAttention(shape, kMultiprocessors).stages, 2);
  shape.key_dim = 4096;
  EXPECT_EQ(ChooseAttention(shape, kMultiprocessors).shared_bytes, -1);
}

TEST(AttentionPartsTest, FollowOneAnother) {
  int part = 0;
  for (int tile = 0; tile < 5000; ++tile) {
    if (tile == FirstTileOfPart(part + 1)) ++part;
    ASSERT_EQ(PartOfTile(tile), part);
    ASSERT_GE(tile, FirstTileOfPart(part));
    ASSERT_LT(tile, FirstTileOfPart(part + 1));
    ASSERT_EQ(PartsOfTiles(tile + 1), part + 1);
  }
  EXPECT_EQ(PartsOfTiles(0), 0);
}

TEST(CutContextsTest, SharesAreWholePartsAndCoverTheContext) {
  for (const int64_t contexts : {1, 4, 64, 256, 3000}) {
    for (const int64_t tiles : {1, 2, 16, 17, 18, 64, 128, 129, 1024, 5000}) {
      const ContextCut cut = CutContexts(contexts, tiles, 2 * kMultiprocessors);
      ASSERT_GE(FirstTileOfCut(cut.tiles_a_block, cut.blocks), tiles);
      ASSERT_LT(FirstTileOfCut(cut.tiles_a_block, cut.blocks - 1), tiles);
      for (int block = 0; block < cut.blocks; ++block) {
        const int tile = FirstTileOfCut(cut.tiles_a_block, block);
        ASSERT_EQ(FirstTileOfPart(PartOfTile(tile)), tile);
      }
    }
  }
}

TEST(RowBlocksTest, HaveTheTokensOfALaunch) {
  // Sequences of 5, 1 and 40 tokens, blocks of 16.
  constexpr int kFirst[] = {0, 5, 6, 46};
  constexpr int kBlock = 16;
  for (int first = 0; first < 46; ++first) {
    for (int end = first + 1; end <= 46; ++end) {
      const RowBlocks blocks = FindRowBlocks(first, end, 3, /*one_each=*/false, kBlock);
      for (int token = first; token < end; ++token) {
        const int row = token < 5 ? 0 : token < 6 ? 1 : 2;
        const int block = FirstRowBlock(kFirst[row], row, kBlock) + (token - kFirst[row]) / kBlock;
        ASSERT_GE(block, blocks.first);
        ASSERT_LT(block, blocks.first + blocks.count);
      }
    }
  }
  EXPECT_EQ(FindRowBlocks(512, 1024, 1, /*one_each=*/false, kBlock).count, 32);
  EXPECT_EQ(FindRowBlocks(3, 7, 9, /*one_each=*/true, kBlock).first, 3);
}

TEST(CutContextsTest, TakesPartsForFewContextsAndLongSharesForMany) {
  EXPECT_EQ(CutContexts(4, 128, 2 * kMultiprocessors).blocks, 24);
  EXPECT_EQ(CutContexts(32, 128, 2 * kMultiprocessors).tiles_a_block, 16);
  EXPECT_EQ(CutContexts(64, 128, kMultiprocessors).tiles_a_block, 64);
  EXPECT_EQ(CutContexts(64, 32, 2 * kMultiprocessors).tiles_a_block, 8);
  // Not all of a context, which may be longer than the others.
  EXPECT_EQ(CutContexts(256, 1024, 2 * kMultiprocessors).tiles_a_block, 64);
}

TEST(ChooseLatentAttentionTest, MergesWholeGroupsWhereRowsAreFew) {
  LatentAttentionShape shape = {
      .tokens = 64, .rows = 64, .heads = 16, .value_dim = 512, .most_tiles = 128};
  const LatentAttentionChoice many = ChooseLatentAttention(shape, kMultiprocessors);
  EXPECT_TRUE(many.merges_groups);
  EXPECT_EQ(many.parts, 2);
  EXPECT_EQ(many.cut.blocks, 2);
  shape.heads = 128;
  EXPECT_FALSE(ChooseLatentAttention(shape, kMultiprocessors).merges_groups);
  shape.heads = 16;
  shape.tokens = shape.rows = 1;  // parts have blocks of their own
  EXPECT_FALSE(ChooseLatentAttention(shape, kMultiprocessors).merges_groups);
  EXPECT_EQ(ChooseLatentAttention(shape, kMultiprocessors).parts, 24);
}

TEST(AttentionPartsTest, GroupsAreWholeParts) {
  for (int group = 0; group < 100; ++group) {
    EXPECT_EQ(FirstTileOfPart(PartOfTile(group * kGroupTiles)), group * kGroupTiles);
  }
  EXPECT_EQ(GroupsOfTiles(0), 0);
  EXPECT_EQ(GroupsOfTiles(kGroupTiles), 1);
  EXPECT_EQ(GroupsOfTiles(kGroupTiles + 1), 2);
}

TEST(ChooseUnitAttentionTest, CutsTheContextOnlyWhereBlocksAreFew) {
  UnitAttentionShape shape = {
      .tokens = 1, .rows = 1, .kv_heads = 4, .group_heads = 8, .most_tiles = 128};
  const auto parts = [&](int rows, int tiles) {
    shape.tokens = shape.rows = rows;
    shape.most_tiles = tiles;
    return ChooseUnitAttention(shape, kMultiprocessors).parts;
  };
  EXPECT_EQ(parts(1, 128), 24);
  EXPECT_EQ(parts(59, 128), 24);  // 236 of the 237 blocks that nearly fill a round
  EXPECT_EQ(parts(60, 128), 1);
  EXPECT_EQ(parts(66, 128), 1);
  EXPECT_EQ(parts(67, 128), 24);   // a round and a little
  EXPECT_EQ(parts(118, 128), 24);  // 472 of the 475 that nearly fill two
  EXPECT_EQ(parts(119, 128), 1);
  EXPECT_EQ(ChooseUnitAttention(shape, kMultiprocessors).row_blocks, 119);
}

TEST(ChooseUnitAttentionTest, CutsWhatMayBeMuchLongerThanTheRest) {
  for (const auto& [rows, most] : {std::pair(64, 160), {128, 320}, {256, 640}, {1024, 2560}}) {
    UnitAttentionShape shape = {.tokens = rows, .rows = rows, .kv_heads = 4, .group_heads = 8};
    shape.most_tiles = most;
    EXPECT_EQ(ChooseUnitAttention(shape, kMultiprocessors).parts, 1) << rows;
    shape.most_tiles = most + 1;
    EXPECT_GT(ChooseUnitAttention(shape, kMultiprocessors).parts, 1) << rows;
    EXPECT_LE(ChooseUnitAttention(shape, kMultiprocessors).cut.tiles_a_block, 64) << rows;
  }
}

TEST(ChooseUnitAttentionTest, PairsWarpgroupsForPrompts) {
  UnitAttentionShape shape = {
      .tokens = 2048, .rows = 1, .kv_heads = 4, .group_heads = 8, .most_tiles = 32};
  const UnitAttentionChoice prompt = ChooseUnitAttention(shape, kMultiprocessors);
  EXPECT_EQ(prompt.warpgroups, 2);
  EXPECT_EQ(prompt.tokens_a_warpgroup, 8);
  EXPECT_EQ(prompt.parts, 1);
  shape.value_blocks = 4;
  EXPECT_EQ(ChooseUnitAttention(shape, kMultiprocessors).warpgroups, 1);
  shape.value_blocks = 2;
  shape.tokens = 64;  // blocks would be too few
  EXPECT_EQ(ChooseUnitAttention(shape, kMultiprocessors).warpgroups, 1);
  EXPECT_EQ(ChooseUnitAttention(shape, kMultiprocessors).parts, 12);
  shape.tokens = 2048;
  shape.tokens_alone = true;
  EXPECT_EQ(ChooseUnitAttention(shape, kMultiprocessors).tokens_a_warpgroup, 1);
  shape.tokens_alone = false;
  shape.group_heads = 128;
  EXPECT_EQ(ChooseUnitAttention(shape, kMultiprocessors).slices, 2);
  EXPECT_EQ(ChooseUnitAttention(shape, kMultiprocessors).tokens_a_warpgroup, 1);
}

TEST(ChooseUnitAttentionTest, SequencesHaveRoomForTheirBlocks) {
  std::mt19937 random(std::random_device{}());
  for (int round = 0; round < 200; ++round) {
    std::vector<int> first = {0};
    const int rows = static_cast<int>(random() % 20) + 1;
    for (int row = 0; row < rows; ++row) {
      first.push_back(first.back() + static_cast<int>(random() % (row % 3 == 0 ? 200 : 4)) + 1);
    }
    const UnitAttentionChoice choice =
        ChooseUnitAttention({.tokens = first.back(),
                             .rows = rows,
                             .kv_heads = 4,
                             .group_heads = static_cast<int>(random() % 70) + 1,
                             .most_tiles = 40},
                            kMultiprocessors);
    if (first.back() == rows) continue;
    const int tokens = choice.tokens_a_warpgroup * choice.warpgroups;
    for (int row = 0; row < rows; ++row) {
      const int begin = FirstRowBlock(first[row], row, tokens);
      const int end = row + 1 < rows ? FirstRowBlock(first[row + 1], row + 1, tokens)
                                     : static_cast<int>(choice.row_blocks);
      ASSERT_GE((end - begin) * tokens, first[row + 1] - first[row]);
    }
  }
}

TEST(UnitBlocksTest, CoverTheHead) {
  for (int key_dim = 8; key_dim <= 256; key_dim += 8) {
    for (int value_dim = 8; value_dim <= 256; value_dim += 8) {
      const UnitBlocks blocks = FindUnitBlocks(key_dim, value_dim);
      EXPECT_GE(blocks.keys * 64, key_dim);
      EXPECT_GE(blocks.values * 64, value_dim);
    }
  }
  EXPECT_EQ(FindUnitBlocks(264, 64).keys, 0);
  EXPECT_EQ(FindUnitBlocks(64, 264).keys, 0);
}

// Nothing that decides the order of sums may depend on the number of rows.
TEST(ChooseProductTest, OnlyTheTileDependsOnTheRows) {
  for (const int64_t inputs : {33, 36, 64, 768}) {
    for (const DType weights : {DType::kF32, DType::kBf16}) {
      for (const Precision precision : {Precision::kF32, Precision::kBf16}) {
        ProductShape shape = {
            .rows = 1, .inputs = inputs, .weights = weights, .precision = precision};
        const ProductChoice one = ChooseProduct(shape);
        for (const int64_t rows : {2, 16, 17, 64, 65, 5000}) {
          shape.rows = rows;
          const ProductChoice many = ChooseProduct(shape);
          EXPECT_EQ(many.kernel, one.kernel);
          EXPECT_EQ(many.unit, one.unit);
        }
      }
    }
  }
}

TEST(ChooseProductTest, TakesTheMatrixUnitsForBf16AlignedRows) {
  ProductShape shape = {
      .rows = 100, .inputs = 64, .weights = DType::kBf16, .precision = Precision::kBf16};
  EXPECT_EQ(ChooseProduct(shape).kernel, ProductKernel::kMatrixUnits);
  EXPECT_EQ(ChooseProduct(shape).rows_a_tile, 128);
  shape.inputs = 60;
  EXPECT_EQ(ChooseProduct(shape).kernel, ProductKernel::kExact);
  EXPECT_EQ(ChooseProduct(shape).unit, 4);
  shape.x_aligned = false;
  EXPECT_EQ(ChooseProduct(shape).unit, 1);
}

constexpr int64_t kMostSharedBytes = 227 << 10;

TEST(ChooseStreamTest, SpreadsTilesOverTheMultiprocessors) {
  const StreamChoice choice =
      ChooseStream(/*tiles=*/320, /*x_rows=*/1, /*inputs=*/2048, 0, kMultiprocessors);
  EXPECT_EQ(choice.warps, 3);
  EXPECT_EQ(choice.blocks, 107);
  EXPECT_EQ(choice.stages, 6);
  EXPECT_EQ(ChooseStream(128, 1, 4096, 0, kMultiprocessors).blocks, 128);
  EXPECT_EQ(ChooseStream(9496, 1, 2048, 0, kMultiprocessors).blocks, kMultiprocessors);
}

TEST(ChooseStreamTest, FitsSharedMemoryOrSaysNo) {
  for (const int64_t rows : {1, 2, 7, 8, 16}) {
    for (const int64_t inputs : {16, 768, 2048, 4096, 12288}) {
      for (const int64_t tiles : {1, 100, 320, 9496}) {
        const StreamChoice choice = ChooseStream(tiles, rows, inputs, 512, kMultiprocessors);
        if (choice.blocks == 0) continue;
        EXPECT_LE(choice.shared_bytes, kMostSharedBytes);
        EXPECT_GE(choice.stages, 2);
        EXPECT_GE(choice.shared_bytes, rows * inputs * 2 + 512);
      }
    }
  }
  EXPECT_EQ(ChooseStream(320, 16, 12288, 0, kMultiprocessors).blocks, 0);
  EXPECT_EQ(ChooseStream(320, 17, 2048, 0, kMultiprocessors).blocks, 0);
  EXPECT_EQ(ChooseStream(320, 1, 2056, 0, kMultiprocessors).blocks, 0);
}

TEST(WantsStreamTest, OnlyWhatComesAtOnce) {
  EXPECT_TRUE(WantsStream(/*tiles=*/320, /*rows=*/8, /*inputs=*/2048, kMultiprocessors));
  EXPECT_FALSE(WantsStream(320, 9, 2048, kMultiprocessors));
  // A tile a block comes while the kernels before it run, even of longer rows.
  EXPECT_TRUE(WantsStream(128, 1, 4096, kMultiprocessors));
  EXPECT_FALSE(WantsStream(128, 1, 4160, kMultiprocessors));
  EXPECT_FALSE(WantsStream(320, 1, 4096, kMultiprocessors));
  EXPECT_FALSE(WantsStream(9496, 1, 2048, kMultiprocessors));
}

TEST(ChooseFewTokensTest, TakesDecodeStepsOfFewTokens) {
  ExpertsShape shape = {.tokens = 1, .experts = 128, .top_k = 8, .hidden = 2048, .size = 768};
  EXPECT_EQ(ChooseFewTokens(shape, kMultiprocessors).down.blocks, 128);
  for (shape.tokens = 1; shape.tokens <= kMostFewTokens; ++shape.tokens) {
    const FewTokensChoice choice = ChooseFewTokens(shape, kMultiprocessors);
    ASSERT_GT(choice.gate_up.blocks, 0) << shape.tokens;
    EXPECT_LE(choice.gate_up.shared_bytes, kMostSharedBytes);
    EXPECT_LE(choice.down.shared_bytes, kMostSharedBytes);
    EXPECT_GE(choice.down.stages, 2);
  }
  EXPECT_EQ(ChooseFewTokens(shape, kMultiprocessors).gate_up.blocks, 0);  // 9 tokens
  shape.tokens = 1;
  shape.size = 24;
  EXPECT_EQ(ChooseFewTokens(shape, kMultiprocessors).gate_up.blocks, 0);
}

TEST(ChooseGroupedRowsTest, LargerTilesForMoreRowsAnExpert) {
  ExpertsShape shape = {.tokens = 9, .experts = 128, .top_k = 8, .hidden = 2048, .size = 768};
  EXPECT_EQ(ChooseGroupedRows(shape), 64);
  shape.tokens = 512;
  EXPECT_EQ(ChooseGroupedRows(shape), 64);
  shape.tokens = 1024;
  EXPECT_EQ(ChooseGroupedRows(shape), 128);
  shape.tokens = 2048;
  EXPECT_EQ(ChooseGroupedRows(shape), 256);
  shape.experts = kMostGroupedExperts + 1;
  EXPECT_EQ(ChooseGroupedRows(shape), 0);
}

}  // namespace
}  // namespace troupe
