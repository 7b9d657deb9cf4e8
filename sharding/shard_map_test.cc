// Maps, layouts and what ranks hold of them: rules one by one, then properties over random models.
#include <algorithm>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "sharding/expert_placement.h"
#include "sharding/layout_rules.h"
#include "sharding/rank_shard.h"
#include "sharding/weight_parts.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

AttentionDescription Attention(int heads, int kv_heads) {
  AttentionDescription attention;
  attention.heads = heads;
  attention.kv_heads = kv_heads;
  attention.head_dim = attention.value_dim = 16;
  attention.score_scale = 0.25F;
  return attention;
}

MoeFfn Moe(int experts, int inner, int shared_inner) {
  MoeFfn moe;
  moe.experts = experts;
  moe.experts_per_token = 2;
  moe.expert_inner_size = inner;
  moe.shared_inner_size = shared_inner;
  return moe;
}

ModelDescription Model(int layers, const AttentionDescription& attention,
                       const FfnDescription& ffn) {
  ModelDescription model;
  model.vocab_size = 100;
  model.hidden_size = 32;
  model.rms_epsilon = 1e-6F;
  model.max_context_tokens = 1024;
  model.layers.assign(layers, {attention, ffn});
  return model;
}

std::string Refusal(const ModelDescription& model, const Layout& layout) {
  const absl::Status status = CheckLayout(model, layout);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  return std::string(status.message());
}

TEST(LayoutText, ReadsWhatItWrites) {
  for (const Layout& layout : {Layout{}, Layout{2, 4, 3, true, 7}, Layout{.pp = 8}}) {
    const absl::StatusOr<Layout> read = ParseLayout(NameOf(layout));
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, layout);
  }
  EXPECT_EQ(*ParseLayout("ep,dp2"), (Layout{.dp = 2, .expert_parallel = true}));
  for (const char* text : {"tp0", "tp", "tp-1", "xp2", "2", "tp2x"}) {
    EXPECT_THAT(ParseLayout(text).status().message(), HasSubstr(text)) << text;
  }
}

TEST(ShardMapTest, RanksAndPlaces) {
  ShardMap map;
  map.layout = {.tp = 2, .dp = 3, .pp = 2};
  for (int rank = 0; rank < map.layout.world(); ++rank) {
    EXPECT_EQ(map.RankOf(map.Place(rank)), rank);
  }
  EXPECT_EQ(map.Place(7), (RankPlace{.stage = 1, .dp_index = 0, .tp_index = 1}));
  EXPECT_EQ(map.StageRank(9), 3);
}

TEST(LayoutRules, RefuseWithTheArithmetic) {
  const ModelDescription dense = Model(4, Attention(12, 4), DenseFfn{.inner_size = 96});
  EXPECT_TRUE(CheckLayout(dense, {.tp = 4, .dp = 5, .pp = 4}).ok());
  EXPECT_THAT(Refusal(dense, {.tp = 8}), HasSubstr("12 / 8 leaves 4, wanted a multiple of tp = 8"));
  EXPECT_THAT(Refusal(dense, {.tp = 6}), HasSubstr("found 4 KV heads"));
  EXPECT_THAT(Refusal(dense, {.pp = 5}), HasSubstr("found 4 layers"));
  EXPECT_THAT(Refusal(dense, {.dp = 2, .expert_parallel = true}),
              HasSubstr("no layer with experts"));
  EXPECT_THAT(Refusal(dense, {.dp = 2, .redundant_experts = 1}), HasSubstr("copies of experts"));
  EXPECT_THAT(Refusal(dense, {.tp = 0}), HasSubstr("1 at least"));

  const ModelDescription moe = Model(2, Attention(8, 2), Moe(8, 30, 16));
  EXPECT_TRUE(CheckLayout(moe, {.tp = 8, .expert_parallel = true}).ok());
  EXPECT_THAT(Refusal(moe, {.tp = 4}), HasSubstr("30 neurons of an expert, 30 / 4 leaves 2"));
  EXPECT_THAT(Refusal(moe, {.dp = 9, .expert_parallel = true}),
              HasSubstr("8 experts + 0 copies, wanted one at least for each of tp * dp = 9"));
  EXPECT_THAT(Refusal(moe, {.dp = 2, .expert_parallel = true, .redundant_experts = 9}),
              HasSubstr("at most 8 experts * (2 ranks - 1)"));

  AttentionDescription sparse = Attention(8, 2);
  sparse.kind = AttentionKind::kNsa;
  sparse.nsa.emplace();
  EXPECT_THAT(Refusal(Model(2, sparse, DenseFfn{.inner_size = 96}), {.tp = 4}),
              HasSubstr("chooses blocks for the 4 heads of a KV head together"));
}

TEST(ShardMapTest, ValidationNamesWhatIsWrong) {
  const ModelDescription model = Model(4, Attention(8, 2), Moe(8, 32, 0));
  const ShardMap good = *BuildShardMap(model, {.dp = 2, .pp = 2, .expert_parallel = true}, 3);
  EXPECT_EQ(good.epoch, 3U);
  ASSERT_TRUE(ValidateShardMap(model, good).ok());
  const auto problem = [&](const auto& spoil) {
    ShardMap map = good;
    spoil(map);
    return std::string(ValidateShardMap(model, map).message());
  };
  EXPECT_THAT(problem([](ShardMap& map) { map.first_layer = {0, 0, 4}; }), HasSubstr("[0, 0, 4]"));
  EXPECT_THAT(problem([](ShardMap& map) { map.first_layer = {0, 4}; }), HasSubstr("[0, 4]"));
  EXPECT_THAT(problem([](ShardMap& map) { map.experts.pop_back(); }), HasSubstr("3 layers"));
  EXPECT_THAT(problem([](ShardMap& map) { map.experts[1].holders[5].clear(); }),
              HasSubstr("layer 1: holders of expert 5: found []"));
  EXPECT_THAT(problem([](ShardMap& map) { map.experts[1].holders[5] = {2}; }), HasSubstr("[2]"));
  EXPECT_THAT(problem([](ShardMap& map) {
                map.experts[1].holders[5] = {1, 0};
              }),
              HasSubstr("[1, 0]"));
  EXPECT_THAT(problem([](ShardMap& map) { map.experts[0].holders.pop_back(); }), HasSubstr("7"));
  EXPECT_THAT(problem([](ShardMap& map) { map.layout.tp = 3; }), HasSubstr("tp = 3"));
}

TEST(PlaceExpertsTest, HotOnesGetCopiesAndLoadsAreEven) {
  const ExpertPlacement placement = PlaceExperts({100, 1, 1, 1, 50, 1, 1, 1}, 4, 4);
  EXPECT_GT(placement.holders[0].size(), placement.holders[1].size());
  EXPECT_GE(placement.holders[4].size(), 2U);
  std::vector<double> load(4, 0);
  const std::vector<double> loads = {100, 1, 1, 1, 50, 1, 1, 1};
  for (size_t e = 0; e < loads.size(); ++e) {
    for (const int rank : placement.holders[e]) {
      load[rank] += loads[e] / static_cast<double>(placement.holders[e].size());
    }
  }
  const double mean = 156.0 / 4;
  EXPECT_LT(*std::max_element(load.begin(), load.end()), 1.35 * mean);
  EXPECT_THAT(PlaceExperts({1, 1, 1, 1}, 2, 0).holders,
              ElementsAre(ElementsAre(0), ElementsAre(1), ElementsAre(0), ElementsAre(1)));
}

TEST(HolderForTest, SpreadsPositionsOverCopies) {
  const ExpertPlacement placement = {{{0, 2, 3}, {1}}};
  std::map<int, int> tokens;
  for (int position = 0; position < 300; ++position) {
    ++tokens[HolderFor(placement, 0, position)];
    EXPECT_EQ(HolderFor(placement, 1, position), 1);
  }
  EXPECT_EQ(tokens, (std::map<int, int>{{0, 100}, {2, 100}, {3, 100}}));
}

// --- Properties over random models and layouts ------------------------------------------------

class RandomMaps : public ::testing::TestWithParam<uint32_t> {
 protected:
  RandomMaps() : random_(GetParam()) {}

  int Pick(std::initializer_list<int> from) {
    return *(from.begin() + static_cast<int64_t>(random_() % from.size()));
  }

  LayerDescription Layer() {
    LayerDescription layer;
    layer.attention = Attention(Pick({4, 8, 16}), Pick({1, 2, 4}));
    AttentionDescription& attention = layer.attention;
    attention.qk_norm = static_cast<QkNorm>(Pick({0, 1, 2}));
    attention.qkv_bias = Pick({0, 1}) == 1;
    attention.output_bias = Pick({0, 1}) == 1;
    attention.sinks = Pick({0, 1}) == 1;
    if (Pick({0, 1, 2}) == 0) {
      attention.kv_heads = attention.heads;
      attention.qk_norm = QkNorm::kNone;
      attention.qkv_bias = attention.sinks = false;
      attention.mla = {Pick({0, 24}), 20, 8, 8, 1e-6F};
    }
    if (Pick({0, 1}) == 0) {
      layer.ffn = DenseFfn{.inner_size = Pick({48, 64, 96}), .bias = Pick({0, 1}) == 1};
    } else {
      MoeFfn moe = Moe(Pick({8, 16, 24}), Pick({16, 48}), Pick({0, 32}));
      moe.expert_bias = Pick({0, 1}) == 1;
      layer.ffn = moe;
    }
    return layer;
  }

  ModelDescription RandomModel() {
    ModelDescription model = Model(0, {}, DenseFfn());
    model.vocab_size = 90 + static_cast<int>(random_() % 40);
    const int layers = Pick({1, 3, 6});
    for (int i = 0; i < layers; ++i) model.layers.push_back(Layer());
    if (Pick({0, 1}) == 1) model.mtp = MtpDescription{Layer()};
    return model;
  }

  std::mt19937 random_;
};

// The part of a slice in a whole of `size`, as a set.
void AddRange(const Slice& slice, int64_t size, std::multiset<int64_t>& rows) {
  for (int64_t i = slice.Begin(size); i < slice.End(size); ++i) rows.insert(i);
}

bool EachExactly(const std::multiset<int64_t>& rows, int64_t size, size_t times) {
  for (int64_t i = 0; i < size; ++i) {
    if (rows.count(i) != times) return false;
  }
  return rows.size() == static_cast<size_t>(size) * times;
}

TEST_P(RandomMaps, EveryLayerHeadExpertAndNeuronIsHeld) {
  ModelDescription model;
  Layout layout;
  absl::StatusOr<ShardMap> map = absl::UnknownError("not drawn yet");
  while (!map.ok()) {
    model = RandomModel();
    layout = {Pick({1, 2, 4}), Pick({1, 2, 3}), Pick({1, 2, 3}), Pick({0, 1}) == 1, Pick({0, 5})};
    map = BuildShardMap(model, layout, 1);
    EXPECT_EQ(CheckLayout(model, layout), map.status());
  }
  ASSERT_TRUE(ValidateShardMap(model, *map).ok()) << ValidateShardMap(model, *map);
  const int layers = model.mtp_layer_index() + (model.mtp.has_value() ? 1 : 0);
  for (int layer = 0; layer < layers; ++layer) {
    const LayerDescription& whole = LayerOf(model, layer);
    std::multiset<int64_t> heads;
    std::multiset<int64_t> neurons;
    std::map<int, int> experts;
    for (int rank = 0; rank < layout.world(); ++rank) {
      const RankShard shard = ShardOf(model, *map, rank);
      EXPECT_EQ(shard.Holds(layer),
                !shard.experts[layer].empty() ||
                    (std::holds_alternative<DenseFfn>(whole.ffn) && shard.Holds(layer)));
      if (!shard.Holds(layer)) continue;
      AddRange(shard.tensor, whole.attention.heads, heads);
      const LayerDescription& part = LayerOf(shard.description, layer);
      EXPECT_EQ(part.attention.heads * layout.tp, whole.attention.heads);
      // The KV heads that the rank's query heads read are the rank's own.
      const KvHeads kv = KvHeadsOf(whole.attention, shard.tensor);
      const int group = whole.attention.heads / whole.attention.kv_heads;
      const auto first = static_cast<int>(shard.tensor.Begin(whole.attention.heads));
      EXPECT_EQ(first / group, kv.first);
      EXPECT_EQ((first + part.attention.heads - 1) / group, kv.first + kv.count - 1);
      EXPECT_EQ(part.attention.heads % kv.count, 0);
      if (const auto* dense = std::get_if<DenseFfn>(&whole.ffn)) {
        AddRange(shard.tensor, dense->inner_size, neurons);
      }
      for (const int expert : shard.experts[layer]) ++experts[expert];
    }
    EXPECT_TRUE(EachExactly(heads, whole.attention.heads, layout.dp)) << "layer " << layer;
    if (const auto* moe = std::get_if<MoeFfn>(&whole.ffn)) {
      int copies = 0;
      for (int e = 0; e < moe->experts; ++e) {
        EXPECT_GE(experts[e], 1);
        copies += experts[e];
      }
      EXPECT_EQ(copies, layout.expert_parallel ? moe->experts + layout.redundant_experts
                                               : moe->experts * layout.tp * layout.dp);
    } else {
      const int inner = std::get<DenseFfn>(whole.ffn).inner_size;
      EXPECT_TRUE(EachExactly(neurons, inner, layout.dp)) << "layer " << layer;
    }
  }
}

// What ranks hold of each role adds up to the whole model, but for what is held by several of a
// group: counted once.
TEST_P(RandomMaps, NumbersAddUp) {
  ModelDescription model;
  Layout layout;
  absl::StatusOr<ShardMap> map = absl::UnknownError("not drawn yet");
  while (!map.ok()) {
    model = RandomModel();
    layout = {.tp = Pick({1, 2, 4}), .pp = Pick({1, 2}), .expert_parallel = Pick({0, 1}) == 1};
    map = BuildShardMap(model, layout, 1);
  }
  std::map<WeightPart, PartNumbers> distinct;
  for (int rank = 0; rank < layout.world(); ++rank) {
    const std::vector<WeightPart> parts = PartsOf(ShardOf(model, *map, rank), /*with_mtp=*/true);
    EXPECT_TRUE(std::is_sorted(parts.begin(), parts.end()));
    EXPECT_EQ(std::adjacent_find(parts.begin(), parts.end()), parts.end()) << "a part held twice";
    for (const WeightPart& part : parts) distinct[part] = NumbersOf(model, part);
  }
  std::map<WeightPart, int64_t> sum;  // by whole part
  for (const auto& [part, numbers] : distinct) {
    WeightPart whole = part;
    whole.slice = Slice();
    sum[whole] += numbers.matrices + numbers.others;
  }
  const std::vector<WeightPart> wholes = PartsOf(WholeModel(model), /*with_mtp=*/true);
  ASSERT_EQ(sum.size(), wholes.size());
  for (const WeightPart& whole : wholes) {
    const PartNumbers numbers = NumbersOf(model, whole);
    if (whole.role == WeightRole::kAttention) {  // norms, latents and copied KV heads are on each
      EXPECT_GE(sum[whole], numbers.matrices + numbers.others) << NameOf(whole);
    } else if (whole.role == WeightRole::kDenseFfn) {
      const int64_t norms = (layout.tp - 1) * model.hidden_size;
      EXPECT_EQ(sum[whole], numbers.matrices + numbers.others + norms) << NameOf(whole);
    } else {
      EXPECT_EQ(sum[whole], numbers.matrices + numbers.others) << NameOf(whole);
    }
  }
}

TEST_P(RandomMaps, PlacementsAreFull) {
  const int experts = Pick({4, 16, 60, 256});
  const int ranks = Pick({2, 4, 8});
  const int redundant = std::min(Pick({0, 3, 16, 40}), experts * (ranks - 1));
  std::vector<double> loads(experts);
  for (double& load : loads) load = static_cast<double>(random_() % 1000);
  const ExpertPlacement placement = PlaceExperts(loads, ranks, redundant);
  std::vector<int> held(ranks, 0);
  for (const std::vector<int>& holders : placement.holders) {
    EXPECT_FALSE(holders.empty());
    EXPECT_TRUE(std::is_sorted(holders.begin(), holders.end()));
    EXPECT_EQ(std::adjacent_find(holders.begin(), holders.end()), holders.end());
    for (const int rank : holders) ++held[rank];
  }
  EXPECT_EQ(std::accumulate(held.begin(), held.end(), 0), experts + redundant);
  EXPECT_LE(*std::max_element(held.begin(), held.end()),
            *std::min_element(held.begin(), held.end()) + 1);
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomMaps, ::testing::Range(1U, 100U));

}  // namespace
}  // namespace troupe
