#include "worker/weight_digests.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "sharding/layout_rules.h"
#include "sharding/shard_map.h"

namespace troupe {
namespace {

std::string Golden(const std::string& name) {
  return absl::StrCat(std::getenv("TROUPE_SOURCE_DIR"), "/tests/golden/models/", name);
}

WeightLedger LedgerOf(const Checkpoint& checkpoint, const ShardMap& map) {
  const ModelDescription& model = checkpoint.description();
  WeightLedger ledger;
  for (int rank = 0; rank < map.layout.world(); ++rank) {
    const auto pieces = DigestWeights(model, checkpoint.weights(), ShardOf(model, map, rank), 2);
    EXPECT_EQ(ledger.Add(absl::StrCat("w", rank), pieces), absl::OkStatus());
  }
  return ledger;
}

// How many layouts of the model were looked at.
int CheckLayouts(const Checkpoint& checkpoint) {
  const ModelDescription& model = checkpoint.description();
  const WeightLedger whole =
      LedgerOf(checkpoint, BuildShardMap(model, ParseLayout("tp1").value(), 1).value());
  int checked = 0;
  for (const char* text :
       {"tp2", "tp4", "dp2", "dp2 ep", "pp2", "tp2 dp2 ep", "tp4 ep", "dp4 ep +2", "tp2 pp2"}) {
    const Layout layout = ParseLayout(text).value();
    if (!CheckLayout(model, layout).ok()) continue;
    SCOPED_TRACE(absl::StrCat(checkpoint.folder(), " ", text));
    const WeightLedger ledger = LedgerOf(checkpoint, BuildShardMap(model, layout, 1).value());
    EXPECT_EQ(ledger.CheckSame(whole), absl::OkStatus());
    EXPECT_EQ(ledger.Total(), whole.Total());
    ++checked;
  }
  return checked;
}

class WeightDigests : public ::testing::TestWithParam<const char*> {};

TEST_P(WeightDigests, AreTheSameInEveryLayout) {
  const auto checkpoint = Checkpoint::Open(Golden(GetParam()));
  ASSERT_EQ(checkpoint.status(), absl::OkStatus());
  EXPECT_GE(CheckLayouts(*checkpoint), 3);
}

// Of every kind of attention, of FFN and of stored codes.
INSTANTIATE_TEST_SUITE_P(Models, WeightDigests,
                         ::testing::Values("llama", "qwen2", "qwen3_moe", "olmo3", "gemma3_text",
                                           "gpt_oss", "gpt_oss_mxfp4", "deepseek_v2", "deepseek_v3",
                                           "deepseek_v3_fp8", "llama_gptq", "llama_awq", "glm4_moe",
                                           "mixtral", "minimax_m2"),
                         [](const auto& info) { return std::string(info.param); });

TEST(WeightDigestsOfAbacus, AreTheSameInEveryLayout) {
  const auto checkpoint =
      Checkpoint::Open(absl::StrCat(std::getenv("TROUPE_SOURCE_DIR"), "/models/abacus"));
  ASSERT_EQ(checkpoint.status(), absl::OkStatus());
  EXPECT_GE(CheckLayouts(*checkpoint), 3);
}

// One bit anywhere: of the first weight and of the last.
TEST(WeightDigestsOfAFile, ShowASingleBit) {
  const std::string folder = ::testing::TempDir() + "/one_bit";
  for (const bool last : {false, true}) {
    std::system(
        absl::StrCat("rm -rf ", folder, " && cp -r ", Golden("qwen3_moe"), " ", folder).c_str());
    const auto intact = Checkpoint::Open(folder);
    ASSERT_EQ(intact.status(), absl::OkStatus());
    const ShardMap map =
        BuildShardMap(intact->description(), ParseLayout("tp1").value(), 1).value();
    const WeightLedger before = LedgerOf(*intact, map);
    {
      std::fstream file(folder + "/model.safetensors",
                        std::ios::in | std::ios::out | std::ios::binary);
      uint64_t header = 0;
      file.read(reinterpret_cast<char*>(&header), sizeof(header));
      file.seekg(0, std::ios::end);
      const auto at = last ? static_cast<int64_t>(file.tellg()) - 1
                           : static_cast<int64_t>(header + sizeof(header));
      file.seekg(at);
      const auto byte = static_cast<char>(file.get() ^ 1);
      file.seekp(at);
      file.put(byte);
    }
    const auto damaged = Checkpoint::Open(folder);
    ASSERT_EQ(damaged.status(), absl::OkStatus());
    EXPECT_TRUE(absl::IsDataLoss(LedgerOf(*damaged, map).CheckSame(before)));
  }
}

}  // namespace
}  // namespace troupe
