// Weights of every stored format, read from a peer part by part, are those of the files; where a
// peer fails, files and other peers stand in.

#include "worker/peer_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "sharding/layout_rules.h"
#include "worker/weight_digests.h"

namespace troupe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Golden(const std::string& name) {
  return absl::StrCat(std::getenv("TROUPE_SOURCE_DIR"), "/tests/golden/models/", name);
}

// Has a checkpoint in this process, and breaks off after so many bytes of weights.
class MemoryPeer final : public WeightPeer {
 public:
  MemoryPeer(std::string name, const Checkpoint* checkpoint,
             int64_t bytes = std::numeric_limits<int64_t>::max())
      : name_(std::move(name)), checkpoint_(checkpoint), left_(bytes) {}

  std::string Name() const override { return name_; }

  absl::StatusOr<Files> List() override {
    if (left_ == 0) return absl::UnavailableError("connection refused");
    Files files{.checkpoint = checkpoint_->ComputeIdentity(1).value()};
    for (const auto& file : checkpoint_->files().files()) {
      const std::string& path = file->path();
      files.files.push_back(
          {path.substr(path.rfind('/') + 1), static_cast<int64_t>(file->bytes().size())});
    }
    return files;
  }

  absl::Status Read(const ModelIdentity& /*checkpoint*/, absl::Span<const FileRange> ranges,
                    absl::FunctionRef<void(std::span<const std::byte>)> take) override {
    const FileIndex index(checkpoint_->files());
    for (const FileRange& range : ranges) {
      for (int64_t s = 0; s < range.count; ++s) {
        auto bytes = index.file(range.file).subspan(range.begin + s * range.stride, range.bytes);
        // In pieces that end anywhere.
        for (size_t at = 0; at < bytes.size(); at += 1000) {
          const auto piece = bytes.subspan(at, std::min<size_t>(1000, bytes.size() - at));
          left_ -= static_cast<int64_t>(piece.size());
          if (left_ < 0) return absl::UnavailableError("connection reset");
          take(piece);
        }
      }
    }
    return absl::OkStatus();
  }

 private:
  const std::string name_;
  const Checkpoint* const checkpoint_;
  int64_t left_;
};

PeerPlan PlanOf(std::vector<std::unique_ptr<WeightPeer>> peers) {
  return {.peers = std::move(peers)};
}

template <class... Peers>
std::vector<std::unique_ptr<WeightPeer>> All(Peers... peers) {
  std::vector<std::unique_ptr<WeightPeer>> all;
  (all.push_back(std::move(peers)), ...);
  return all;
}

// Digests of what the rank reads, one part after another.
absl::StatusOr<std::vector<WeightPiece>> ReadAll(PeerCheckpoint& peers, const RankShard& shard) {
  CheckpointReader reader(peers.checkpoint(), shard, 2, &peers);
  std::vector<WeightPiece> all;
  for (const WeightPart& part : PartsOf(shard, /*with_mtp=*/false)) {
    auto pieces = reader.Begin(part);
    if (!pieces.ok()) return pieces.status();
    reader.End(part);
    all.insert(all.end(), pieces->begin(), pieces->end());
  }
  return all;
}

void ExpectSame(const std::vector<WeightPiece>& found, const std::vector<WeightPiece>& wanted) {
  WeightLedger ledger;
  EXPECT_EQ(found.size(), wanted.size());
  EXPECT_EQ(ledger.Add("wanted", wanted), absl::OkStatus());
  EXPECT_EQ(ledger.Add("found", found), absl::OkStatus());
}

class PeerCheckpoints : public ::testing::TestWithParam<const char*> {};

TEST_P(PeerCheckpoints, ReadWhatTheFilesHold) {
  const auto files = Checkpoint::Open(Golden(GetParam()));
  ASSERT_EQ(files.status(), absl::OkStatus());
  const ModelDescription& model = files->description();
  int checked = 0;
  for (const char* text : {"tp1", "tp2", "dp2 ep", "pp2", "tp2 dp2 ep"}) {
    const Layout layout = ParseLayout(text).value();
    if (!CheckLayout(model, layout).ok()) continue;
    const ShardMap map = BuildShardMap(model, layout, 1).value();
    for (int rank = 0; rank < layout.world(); ++rank) {
      SCOPED_TRACE(absl::StrCat(text, " rank ", rank));
      auto peers = PeerCheckpoint::Open(
          files->folder(), PlanOf(All(std::make_unique<MemoryPeer>("w0", &*files))), std::nullopt);
      ASSERT_EQ(peers.status(), absl::OkStatus());
      EXPECT_EQ((*peers)->identity(), files->ComputeIdentity(1).value());
      const RankShard shard = ShardOf(model, map, rank);
      const auto found = ReadAll(**peers, shard);
      ASSERT_EQ(found.status(), absl::OkStatus());
      ExpectSame(*found, DigestWeights(model, files->weights(), shard, 1));
      EXPECT_EQ((*peers)->read().disk, 0);
      EXPECT_GT((*peers)->read().peers, 0);
      ++checked;
    }
  }
  EXPECT_GE(checked, 3);
}

INSTANTIATE_TEST_SUITE_P(Models, PeerCheckpoints,
                         ::testing::Values("llama", "qwen2", "qwen3_moe", "olmo3", "gpt_oss",
                                           "gpt_oss_mxfp4", "deepseek_v2", "deepseek_v3_fp8",
                                           "llama_gptq", "llama_awq", "mixtral"),
                         [](const auto& info) { return std::string(info.param); });

class FailingPeers : public ::testing::Test {
 protected:
  FailingPeers()
      : files_(Checkpoint::Open(Golden("qwen3_moe")).value()),
        shard_(ShardOf(files_.description(),
                       BuildShardMap(files_.description(), ParseLayout("tp2").value(), 1).value(),
                       1)),
        wanted_(DigestWeights(files_.description(), files_.weights(), shard_, 1)) {}

  PeerCheckpoint::Local Local() const {
    return {.files = &files_, .identity = [this] { return files_.ComputeIdentity(1); }};
  }

  const Checkpoint files_;
  const RankShard shard_;
  const std::vector<WeightPiece> wanted_;
};

// All parts are planned to come from w0, which breaks off somewhere, header and middle included.
TEST_F(FailingPeers, FilesStandIn) {
  int from_both = 0;
  for (const int64_t bytes : {4000, 50'000, 100'000, 10'000'000}) {
    SCOPED_TRACE(bytes);
    PeerPlan plan = PlanOf(All(std::make_unique<MemoryPeer>("w0", &files_, bytes)));
    for (WeightPart part : PartsOf(shard_, false)) {
      part.slice = Slice();
      plan.sources[part] = 0;
    }
    auto peers = PeerCheckpoint::Open(files_.folder(), std::move(plan), Local());
    if (!peers.ok()) {  // with its files a rank does without
      EXPECT_TRUE(absl::IsUnavailable(peers.status())) << peers.status();
      EXPECT_LT(bytes, 50'000);
      continue;
    }
    const auto found = ReadAll(**peers, shard_);
    ASSERT_EQ(found.status(), absl::OkStatus());
    ExpectSame(*found, wanted_);
    const WeightBytes& read = (*peers)->read();
    from_both += read.peers > 0 && read.disk > 0 ? 1 : 0;
    if (bytes == 10'000'000) EXPECT_EQ(read.disk, 0);
  }
  EXPECT_GE(from_both, 1);
}

TEST_F(FailingPeers, OtherPeersStandInWhereThereAreNoFiles) {
  auto peers = PeerCheckpoint::Open(files_.folder(),
                                    PlanOf(All(std::make_unique<MemoryPeer>("w0", &files_, 0),
                                               std::make_unique<MemoryPeer>("w1", &files_, 60'000),
                                               std::make_unique<MemoryPeer>("w2", &files_))),
                                    std::nullopt);
  ASSERT_EQ(peers.status(), absl::OkStatus());
  const auto found = ReadAll(**peers, shard_);
  ASSERT_EQ(found.status(), absl::OkStatus());
  ExpectSame(*found, wanted_);
}

TEST_F(FailingPeers, NobodyIsAnErrorThatNamesAll) {
  auto peers = PeerCheckpoint::Open(files_.folder(),
                                    PlanOf(All(std::make_unique<MemoryPeer>("w0", &files_, 60'000),
                                               std::make_unique<MemoryPeer>("w1", &files_, 0))),
                                    std::nullopt);
  ASSERT_EQ(peers.status(), absl::OkStatus());
  const absl::Status status = ReadAll(**peers, shard_).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("no weights in this machine's folder"),
                    HasSubstr("w0: connection reset"), HasSubstr("w1: connection refused")));
  EXPECT_THAT(
      PeerCheckpoint::Open(files_.folder(),
                           PlanOf(All(std::make_unique<MemoryPeer>("w1", &files_, 0))), Local())
          .status()
          .message(),
      HasSubstr("no peer has weights; w1: connection refused"));
}

// Files that are another checkpoint's must not be mixed with what peers gave.
TEST_F(FailingPeers, OtherFilesDoNotStandIn) {
  PeerCheckpoint::Local other = Local();
  other.identity = [] { return ModelIdentity{.sha256 = {1}}; };
  auto peers = PeerCheckpoint::Open(
      files_.folder(), PlanOf(All(std::make_unique<MemoryPeer>("w0", &files_, 60'000))), other);
  ASSERT_EQ(peers.status(), absl::OkStatus());
  EXPECT_THAT(ReadAll(**peers, shard_).status().message(),
              HasSubstr("this machine's folder holds another checkpoint, 01000000"));
}

TEST(FileIndex, SaysWhereSlicesLie) {
  const auto files = Checkpoint::Open(Golden("llama"));
  ASSERT_EQ(files.status(), absl::OkStatus());
  const FileIndex index(files->files());
  const MatrixView& whole = files->weights().layers[0].attention.o_proj.weight;
  const auto all = index.Of(whole);
  ASSERT_EQ(all.status(), absl::OkStatus());
  ASSERT_EQ(all->size(), 1u);
  EXPECT_EQ((*all)[0].count, 1);
  EXPECT_EQ((*all)[0].total(), whole.stored_bytes());
  const MatrixView half = whole.ColumnsFrom(whole.cols / 2, whole.cols / 2);
  const auto columns = index.Of(half);
  EXPECT_EQ((*columns)[0].count, whole.rows);
  EXPECT_EQ((*columns)[0].total(), half.stored_bytes());
  EXPECT_EQ((*columns)[0].end(), (*all)[0].end());
  const MatrixView rows = whole.RowsFrom(2, 3);
  EXPECT_EQ((*index.Of(rows))[0].total(), rows.stored_bytes());
  EXPECT_EQ((*index.Of(rows))[0].begin, (*all)[0].begin + 2 * whole.stored_bytes() / whole.rows);
  const std::byte elsewhere{};
  EXPECT_TRUE(absl::IsFailedPrecondition(index.Of({&elsewhere, 1}, "a copy").status()));
}

}  // namespace
}  // namespace troupe
