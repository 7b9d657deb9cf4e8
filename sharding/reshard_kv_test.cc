#include "sharding/reshard_kv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "sharding/layout_rules.h"
#include "sharding/reshard_test_model.h"

namespace troupe {
namespace {

using testing::MoeModel;

struct Case {
  const char* from;
  const char* to;
  std::vector<KvFate> fates;  // of sequences in the old homes, in order
};

using Names = std::vector<std::string>;

RankMatch Same(const ShardMap& from, const ShardMap& to) {
  std::vector<std::string> names;
  for (int r = 0; r < std::max(from.layout.world(), to.layout.world()); ++r) {
    names.push_back(absl::StrCat("w", r));
  }
  const std::vector<std::string> old(names.begin(), names.begin() + from.layout.world());
  const std::vector<std::string> now(names.begin(), names.begin() + to.layout.world());
  return MatchRanks(old, now, std::vector<bool>(old.size(), true));
}

TEST(ReshardKv, KeepsWhatStaysWhereItIs) {
  const ModelDescription model = MoeModel(4, 8);
  using enum KvFate;
  const Case cases[] = {
      // Experts move, attention does not.
      {"tp2", "tp2 ep", {kKeeps}},
      {"dp2 ep", "dp2 ep +8", {kKeeps, kKeeps}},
      {"dp2 ep", "dp4 ep", {kKeeps, kKeeps}},
      {"tp2 dp2", "tp2 dp4", {kKeeps, kKeeps}},
      // The second home goes, and its sequences with it.
      {"dp2 ep", "tp1", {kKeeps, kMoves}},
      // Heads are cut otherwise.
      {"tp2", "dp2 ep", {kMoves}},
      {"dp2 ep", "tp2", {kMoves, kMoves}},
      {"tp1", "pp2", {kMoves}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(absl::StrCat(c.from, " -> ", c.to));
    const ShardMap from = BuildShardMap(model, ParseLayout(c.from).value(), 1).value();
    const ShardMap to = BuildShardMap(model, ParseLayout(c.to).value(), 2).value();
    std::vector<LiveState> sequences;
    for (int h = 0; h < from.layout.dp; ++h) sequences.push_back({h, 1000});
    const auto planned =
        PlanStates(model, from, to, Same(from, to), {}, {.prefill_tokens_per_s = 1}, sequences);
    for (size_t i = 0; i < sequences.size(); ++i) {
      EXPECT_EQ(planned[i].fate, c.fates[i]) << "home " << i;
      EXPECT_GE(planned[i].home, 0);
      EXPECT_LT(planned[i].home, to.layout.dp);
      EXPECT_TRUE(planned[i].fate != kKeeps || planned[i].home == sequences[i].home);
    }
  }
}

TEST(ReshardKv, ComputesAgainWhatIsLostOrNotWorthTheWay) {
  const ModelDescription model = MoeModel(4, 8);
  const ShardMap from = BuildShardMap(model, ParseLayout("dp2 ep").value(), 1).value();
  const ShardMap to = BuildShardMap(model, ParseLayout("tp1").value(), 2).value();
  const std::vector<LiveState> sequences = {{0, 500}, {1, 1000}, {1, 2000}};
  // The machine of the second home is gone.
  const RankMatch match = MatchRanks(Names({"w0", "w1"}), Names({"w0"}), {true, false});
  const auto lost = PlanStates(model, from, to, match, {}, {.prefill_tokens_per_s = 1}, sequences);
  EXPECT_EQ(lost[0].fate, KvFate::kKeeps);
  EXPECT_EQ(lost[1].fate, KvFate::kRecomputes);
  EXPECT_EQ(lost[2].fate, KvFate::kRecomputes);
  // A link so slow that computing is quicker.
  const auto slow = PlanStates(model, from, to, Same(from, to), {},
                               {.peer_bytes_per_s = 1, .prefill_tokens_per_s = 1e4}, sequences);
  EXPECT_EQ(slow[0].fate, KvFate::kKeeps);
  EXPECT_EQ(slow[1].fate,
            BytesOfRank(model, to, 0, {}).kv_per_token > 0 ? KvFate::kRecomputes : KvFate::kMoves);
}

TEST(ReshardKv, SpreadsTheHomelessByTokens) {
  const ModelDescription model = MoeModel(4, 8);
  const ShardMap from = BuildShardMap(model, ParseLayout("tp2").value(), 1).value();
  const ShardMap to = BuildShardMap(model, ParseLayout("dp4 ep").value(), 2).value();
  const RankMatch match =
      MatchRanks(Names({"w0", "w1"}), Names({"x0", "x1", "x2", "x3"}), {false, false});
  std::vector<LiveState> sequences;
  for (int i = 0; i < 64; ++i) sequences.push_back({0, 100 + 10 * i});
  std::vector<int64_t> tokens(4, 0);
  const auto planned = PlanStates(model, from, to, match, {}, {}, sequences);
  for (size_t i = 0; i < planned.size(); ++i) {
    EXPECT_EQ(planned[i].fate, KvFate::kRecomputes);
    tokens[planned[i].home] += sequences[i].tokens;
  }
  EXPECT_LE(*std::max_element(tokens.begin(), tokens.end()) -
                *std::min_element(tokens.begin(), tokens.end()),
            740);
}

}  // namespace
}  // namespace troupe
