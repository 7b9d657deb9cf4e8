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
#include "sharding/weight_ledger.h"
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
      EXPECT_EQ(held->parts_digest, PartsDigest(model, PartsOf(ShardOf(model, map, rank), false)));
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

// What a rank has for the map that serves is not read again, whatever changes around it, and is the
// same as what a rank reads that had nothing.
TEST(Rank, SharesThePartsThatItHasAlready) {
  const ModelDescription model = ReadModelConfig(Abacus())->description;
  const auto open = [&](const char* layout, std::shared_ptr<const LoadedModel> keep) {
    const ShardMap map = BuildShardMap(model, ParseLayout(layout).value(), 0).value();
    auto rank = Rank::Open(Config().rank, Rank::Part{.map = map, .rank = 0}, nullptr,
                           {.digests = true, .keep = std::move(keep)});
    EXPECT_EQ(rank.status(), absl::OkStatus());
    return *std::move(rank);
  };
  const auto from = open("dp2 ep", nullptr);
  for (const char* to : {"dp4 ep", "tp1", "pp2", "tp2", "tp2 dp2 ep"}) {
    SCOPED_TRACE(to);
    const auto fresh = open(to, nullptr);
    const auto next = open(to, from->model);
    int64_t kept = 0;
    int64_t stored = 0;
    for (const auto& [part, loaded] : next->model->parts) {
      const bool had = from->model->parts.contains(part);
      (had ? kept : stored) += had ? loaded.device_bytes : loaded.stored_bytes;
    }
    EXPECT_EQ(next->model->kept_bytes, kept);
    EXPECT_EQ(next->model->weight_bytes, fresh->model->weight_bytes);
    EXPECT_EQ(next->read.disk, stored);
    EXPECT_LT(next->read.disk, fresh->read.disk) << "the router at least is whole in both";
    const std::vector<WeightPart> parts = HeldParts(*next->model);
    EXPECT_EQ(PartsDigest(model, parts), PartsDigest(model, HeldParts(*fresh->model)));
    WeightLedger ledger;
    EXPECT_EQ(ledger.Add("fresh", fresh->WeightDigests()), absl::OkStatus());
    EXPECT_EQ(ledger.Add("next", next->WeightDigests()), absl::OkStatus());
    EXPECT_EQ(next->WeightDigests().size(), fresh->WeightDigests().size());
    const bool whole = next->model->shard.tensor == from->model->shard.tensor;
    EXPECT_EQ(next->model->layers[0].attention.in == from->model->layers[0].attention.in, whole);
    EXPECT_NE(next->model->layers[0].attention.in, fresh->model->layers[0].attention.in);
  }
  // Nothing changes: nothing is read, also when whoever loaded it is gone.
  std::shared_ptr<const LoadedModel> last = open("dp2 ep", from->model)->model;
  const auto same = open("dp2 ep", std::move(last));
  EXPECT_EQ(same->read.disk, 0);
  EXPECT_EQ(same->model->parts.size(), from->model->parts.size());
}

TEST(HeldParts, MissesWhatIsNotThere) {
  const ModelDescription model = ReadModelConfig(Abacus())->description;
  const ShardMap map = BuildShardMap(model, ParseLayout("pp2").value(), 0).value();
  auto rank = Rank::Open(Config().rank, Rank::Part{.map = map, .rank = 1}, nullptr);
  ASSERT_EQ(rank.status(), absl::OkStatus());
  LoadedModel loaded = *(*rank)->model;
  const std::vector<WeightPart> all = HeldParts(loaded);
  EXPECT_EQ(all, PartsOf(ShardOf(model, map, 1), false));
  loaded.layers.back().attention.out = nullptr;
  const std::vector<WeightPart> fewer = HeldParts(loaded);
  EXPECT_EQ(fewer.size(), all.size() - 1);
}

}  // namespace
}  // namespace troupe
