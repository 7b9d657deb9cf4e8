// What ranks hold in bytes, and which layouts are chosen.
#include "sharding/layout_plan.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "sharding/layout_rules.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kGiB = int64_t{1} << 30;

// Of the shape of Qwen3-30B-A3B.
ModelDescription MoeModel() {
  LayerDescription layer;
  AttentionDescription& attention = layer.attention;
  attention.heads = 32;
  attention.kv_heads = 4;
  attention.head_dim = attention.value_dim = 128;
  attention.qk_norm = QkNorm::kPerHead;
  MoeFfn moe;
  moe.experts = 128;
  moe.experts_per_token = 8;
  moe.expert_inner_size = 768;
  layer.ffn = moe;
  ModelDescription model;
  model.vocab_size = 151936;
  model.hidden_size = 2048;
  model.max_context_tokens = 40960;
  model.layers.assign(48, layer);
  return model;
}

RankBytes Bytes(const Layout& layout, int rank = 0) {
  const ModelDescription model = MoeModel();
  return BytesOfRank(model, *BuildShardMap(model, layout, 0), rank, {});
}

TEST(BytesOfRankTest, WholeModelIsWhatItsParametersAre) {
  EXPECT_NEAR(static_cast<double>(Bytes({}).weights), 2 * 30.53e9, 2e7);
  // 48 layers of 4 heads of 128, keys and values.
  EXPECT_EQ(Bytes({}).kv_per_token, 48 * 4 * 2 * 128 * 2);
  EXPECT_EQ(Bytes({}).kv_longest, int64_t{48 * 4 * 2 * 128 * 2} * 40960);
}

TEST(BytesOfRankTest, LayoutsDivideWhatTheySay) {
  const RankBytes whole = Bytes({});
  EXPECT_EQ(Bytes({.tp = 2}).kv_per_token, whole.kv_per_token / 2);
  EXPECT_EQ(Bytes({.tp = 8}).kv_per_token, whole.kv_per_token / 4) << "4 KV heads on 8 ranks";
  EXPECT_EQ(Bytes({.dp = 2, .expert_parallel = true}).kv_per_token, whole.kv_per_token);
  EXPECT_EQ(Bytes({.pp = 2}).kv_per_token, whole.kv_per_token / 2);
  const int64_t experts = int64_t{48} * 128 * 3 * 2048 * 768 * 2;
  EXPECT_EQ(whole.weights - Bytes({.dp = 4, .expert_parallel = true}).weights, experts * 3 / 4);
  EXPECT_LT(Bytes({.tp = 2}).weights, whole.weights * 51 / 100);
  // Stages are about as large as each other, embedding and head included.
  const double first = static_cast<double>(Bytes({.pp = 2}, 0).weights);
  EXPECT_NEAR(first / static_cast<double>(Bytes({.pp = 2}, 1).weights), 1, 0.05);
}

TEST(CheckFitsTest, SaysWhatIsMissing) {
  const ModelDescription model = MoeModel();
  const ShardMap map = *BuildShardMap(model, {.tp = 2}, 0);
  EXPECT_TRUE(CheckFits(model, map, {.memory_bytes = 40 * kGiB}).ok());
  const absl::Status status = CheckFits(model, map, {.memory_bytes = 24 * kGiB});
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("weights + "));
  EXPECT_THAT(std::string(status.message()), HasSubstr("KV of one sequence of 40960 tokens"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("has 24.00 GiB"));
}

TEST(ChooseLayoutTest, TakesWhatFitsAndKeepsToTheWish) {
  const ModelDescription model = MoeModel();
  const auto choose = [&](const LayoutWish& wish, int64_t memory) {
    return ChooseLayout(model, wish, {.memory_bytes = memory}, {});
  };
  const auto one = choose({.ranks = 1}, 141 * kGiB);
  ASSERT_TRUE(one.ok()) << one.status();
  EXPECT_EQ(one->map.layout, (Layout{}));
  const auto two = choose({.ranks = 2}, 141 * kGiB);
  ASSERT_TRUE(two.ok()) << two.status();
  EXPECT_EQ(two->map.layout.world(), 2);
  EXPECT_EQ(two->map.layout.pp, 1) << "stages do not make a token faster";
  EXPECT_EQ(two->candidates.front().layout, two->map.layout);
  EXPECT_GT(two->candidates.front().longest_fit, 0);
  for (const LayoutCandidate& candidate : two->candidates) {
    if (!candidate.status.ok()) continue;
    EXPECT_GE(candidate.cost.total_s(), two->candidates.front().cost.total_s());
  }
  EXPECT_TRUE(ValidateShardMap(model, two->map).ok());

  const auto wished = choose({.ranks = 8, .dp = 4, .expert_parallel = true}, 0);
  ASSERT_TRUE(wished.ok()) << wished.status();
  EXPECT_EQ(wished->map.layout.dp, 4);
  EXPECT_TRUE(wished->map.layout.expert_parallel);
  // Too little for a copy of the experts in each home.
  const auto small = choose({.ranks = 4, .dp = 4}, 30 * kGiB);
  ASSERT_TRUE(small.ok()) << small.status();
  EXPECT_TRUE(small->map.layout.expert_parallel);
}

TEST(ChooseLayoutTest, SaysWhyNothingSuits) {
  const ModelDescription model = MoeModel();
  const auto message = [&](const LayoutWish& wish, int64_t memory) {
    return std::string(ChooseLayout(model, wish, {.memory_bytes = memory}, {}).status().message());
  };
  EXPECT_THAT(message({.ranks = 2}, 8 * kGiB), HasSubstr("has 8.00 GiB"));
  EXPECT_THAT(message({.ranks = 4, .tp = 3}, 0), HasSubstr("do not multiply to 4 ranks"));
  EXPECT_THAT(message({.ranks = 7, .tp = 7}, 0), HasSubstr("32 / 7 leaves 4"));
  EXPECT_THAT(message({.ranks = 0}, 0), HasSubstr("ranks: found 0"));
}

}  // namespace
}  // namespace troupe
