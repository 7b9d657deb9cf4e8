// Shards that a worker prepares, of the bundled model: the digest of what lies in its memory is the
// one that a coordinator works out from the map, and what is retired is gone.

#include "worker/rank_member.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "model/checkpoint.h"
#include "sharding/layout_rules.h"
#include "sharding/reshard_plan.h"
#include "sharding/shard_map_proto.h"
#include "worker/held_parts.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string Abacus() { return absl::StrCat(std::getenv("TROUPE_SOURCE_DIR"), "/models/abacus"); }

RankMember::Config Config() {
  RankMember::Config config;
  config.rank.model = Abacus();
  config.rank.threads = 1;
  config.rank.kv_memory_bytes = int64_t{512} << 20;
  config.rank.max_context = 1024;
  return config;
}

TEST(RankMember, PreparesWhatTheMapSays) {
  const ModelDescription model = ReadModelConfig(Abacus())->description;
  const auto member = RankMember::Assigned(Config());
  uint64_t epoch = 0;
  int prepared = 0;
  for (const char* text : {"tp2", "dp2 ep", "pp2", "tp1"}) {
    const Layout layout = ParseLayout(text).value();
    if (!CheckLayout(model, layout).ok()) continue;
    const ShardMap map = BuildShardMap(model, layout, ++epoch).value();
    for (int rank = 0; rank < layout.world(); ++rank) {
      SCOPED_TRACE(absl::StrCat(text, " rank ", rank));
      const auto held = member->Prepare(ToProto(map), rank, nullptr);
      ASSERT_EQ(held.status(), absl::OkStatus());
      EXPECT_EQ(held->parts_digest,
                PartsDigest(model, PartsOf(ShardOf(model, map, rank), false)));
      EXPECT_THAT(member->MapEpochs(), ElementsAre(epoch));
      EXPECT_EQ(member->rank(), nullptr) << "what is prepared does not serve";
      ++prepared;
    }
  }
  EXPECT_GE(prepared, 3);
  member->RetirePrepared(epoch);
  EXPECT_THAT(member->MapEpochs(), ElementsAre(epoch));
  EXPECT_FALSE(member->Retire(0));
  EXPECT_THAT(member->MapEpochs(), IsEmpty());
}

TEST(RankMember, RefusesShardsItCannotHave) {
  const ModelDescription model = ReadModelConfig(Abacus())->description;
  const v1::ShardMap map = ToProto(BuildShardMap(model, ParseLayout("pp2").value(), 1).value());
  const auto member = RankMember::Assigned(Config());
  EXPECT_THAT(member->Prepare(map, 2, nullptr).status().message(),
              HasSubstr("found 2, wanted less than 2"));
  EXPECT_THAT(member->MapEpochs(), IsEmpty());
}

TEST(HeldParts, MissesWhatIsNotThere) {
  const ModelDescription model = ReadModelConfig(Abacus())->description;
  const ShardMap map = BuildShardMap(model, ParseLayout("pp2").value(), 0).value();
  auto rank = Rank::Open(Config().rank, Rank::Part{.map = map, .rank = 1}, nullptr);
  ASSERT_EQ(rank.status(), absl::OkStatus());
  LoadedModel& loaded = (*rank)->model;
  const std::vector<WeightPart> all = HeldParts(loaded);
  EXPECT_EQ(all, PartsOf(ShardOf(model, map, 1), false));
  loaded.layers.back().attention.out = nullptr;
  const std::vector<WeightPart> fewer = HeldParts(loaded);
  EXPECT_EQ(fewer.size(), all.size() - 1);
}

}  // namespace
}  // namespace troupe
