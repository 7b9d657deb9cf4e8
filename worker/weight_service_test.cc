// Weights over a real connection: what arrives is what the files hold, and whatever a peer does
// wrong is an error and not a hang.

#include "worker/weight_service.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/thread_executor.h"
#include "rpc/rpc_server.h"
#include "sharding/layout_rules.h"
#include "worker/rank.h"
#include "worker/weight_peer_client.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

ServedCheckpoint Abacus() {
  const std::string folder = absl::StrCat(std::getenv("TROUPE_SOURCE_DIR"), "/models/abacus");
  auto files = std::make_shared<const Checkpoint>(Checkpoint::Open(folder).value());
  return {files, files->ComputeIdentity(2).value()};
}

class Server final : public v1::Worker::CallbackService {
 public:
  explicit Server(ServedCheckpoint served) : served_(std::move(served)) {}

  grpc::ServerWriteReactor<v1::WeightChunk>* ReadWeights(
      grpc::CallbackServerContext* /*context*/, const v1::ReadWeightsRequest* request) override {
    return ReadWeightsCall(*request, served_, &sender_);
  }

 private:
  const ServedCheckpoint served_;
  ThreadExecutor sender_{{.name = "sender", .thread_count = 1}};
};

// Answers with whatever it is given.
class Liar final : public v1::Worker::Service {
 public:
  explicit Liar(v1::WeightChunk chunk) : chunk_(std::move(chunk)) {}

  grpc::Status ReadWeights(grpc::ServerContext* /*context*/,
                           const v1::ReadWeightsRequest* /*request*/,
                           grpc::ServerWriter<v1::WeightChunk>* writer) override {
    writer->Write(chunk_);
    return grpc::Status::OK;
  }

 private:
  const v1::WeightChunk chunk_;
};

class WeightService : public ::testing::Test {
 protected:
  std::unique_ptr<WeightPeer> Serve(grpc::Service* service) {
    rpc_ = RpcServer::Start({}, {service}).value();
    return DialWeightPeer("w0", absl::StrCat("127.0.0.1:", rpc_->port()));
  }

  std::unique_ptr<RpcServer> rpc_;
};

TEST_F(WeightService, GivesWhatTheFilesHold) {
  const ServedCheckpoint served = Abacus();
  Server server(served);
  const auto peer = Serve(&server);
  const auto files = peer->List();
  ASSERT_EQ(files.status(), absl::OkStatus());
  EXPECT_EQ(files->checkpoint, served.identity);
  const FileIndex index(served.files->files());
  ASSERT_EQ(files->files.size(), static_cast<size_t>(index.size()));
  std::vector<FileRange> ranges;
  std::vector<std::byte> wanted;
  for (int f = 0; f < index.size(); ++f) {
    const auto file = index.file(f);
    EXPECT_EQ(files->files[f].bytes, static_cast<int64_t>(file.size()));
    // All of it, in more than one message, and every tenth byte of its beginning.
    ranges.push_back({.file = f, .bytes = static_cast<int64_t>(file.size())});
    wanted.insert(wanted.end(), file.begin(), file.end());
    ranges.push_back({.file = f, .begin = 5, .bytes = 1, .stride = 10, .count = 700});
    for (int i = 0; i < 700; ++i) wanted.push_back(file[5 + 10 * i]);
  }
  std::vector<std::byte> found;
  ASSERT_EQ(peer->Read(served.identity, ranges,
                       [&](std::span<const std::byte> bytes) {
                         found.insert(found.end(), bytes.begin(), bytes.end());
                       }),
            absl::OkStatus());
  EXPECT_TRUE(found == wanted);
  EXPECT_GT(wanted.size(), size_t{2} << 20);
}

TEST_F(WeightService, RefusesWhatItDoesNotHave) {
  const ServedCheckpoint served = Abacus();
  Server server(served);
  const auto peer = Serve(&server);
  const auto size = static_cast<int64_t>(served.files->files().files()[0]->bytes().size());
  for (const FileRange& range :
       {FileRange{.file = 99, .bytes = 1}, FileRange{.bytes = size + 1},
        FileRange{.begin = size, .bytes = 1}, FileRange{.begin = -1, .bytes = 1}, FileRange{},
        FileRange{.bytes = 1, .stride = size / 2, .count = 3},
        FileRange{.bytes = 1, .stride = size, .count = int64_t{1} << 62}}) {
    EXPECT_TRUE(absl::IsInvalidArgument(peer->Read(served.identity, {range}, [](auto) {})))
        << range.begin << " " << range.bytes << " " << range.stride << " " << range.count;
  }
  const absl::Status other = peer->Read({}, {{.bytes = 1}}, [](auto) {});
  EXPECT_TRUE(absl::IsFailedPrecondition(other)) << other;
  EXPECT_THAT(other.message(), HasSubstr("has another checkpoint"));
}

TEST_F(WeightService, HasNothingWithoutFiles) {
  Server server({});
  EXPECT_TRUE(absl::IsFailedPrecondition(Serve(&server)->List().status()));
}

TEST_F(WeightService, BytesThatWereChangedOnTheWayAreAnError) {
  v1::WeightChunk chunk;
  chunk.set_data("1234");
  chunk.set_sha256(std::string(32, 'x'));
  Liar liar(chunk);
  const auto peer = Serve(&liar);
  EXPECT_TRUE(absl::IsDataLoss(peer->Read({}, {{.bytes = 4}}, [](auto) { FAIL(); })));
  EXPECT_TRUE(absl::IsDataLoss(peer->Read({}, {{.bytes = 3}}, [](auto) { FAIL(); })));
  EXPECT_TRUE(absl::IsDataLoss(peer->List().status()));
}

TEST_F(WeightService, APeerThatDiesOrSendsTooLittleIsAnError) {
  Liar liar({});
  auto peer = Serve(&liar);
  EXPECT_TRUE(absl::IsDataLoss(peer->Read({}, {{.bytes = 4}}, [](auto) {})));
  const ServedCheckpoint served = Abacus();
  Server server(served);
  peer = Serve(&server);
  const auto size = static_cast<int64_t>(served.files->files().files()[0]->bytes().size());
  bool stopped = false;
  std::thread stop;
  // Far more than buffers hold.
  const std::vector<FileRange> ranges(200, FileRange{.bytes = size});
  const absl::Status status = peer->Read(served.identity, ranges, [&](auto /*bytes*/) {
    if (std::exchange(stopped, true)) return;
    stop = std::thread([&] { rpc_->Shutdown(absl::ZeroDuration()); });
  });
  stop.join();
  EXPECT_FALSE(status.ok());
  EXPECT_FALSE(absl::IsDataLoss(status)) << status;
}

// A machine with the configs alone becomes the rank that one with the files becomes.
TEST_F(WeightService, MakesARankWhereTheFolderHasNoWeights) {
  const std::string folder = absl::StrCat(::testing::TempDir(), "/configs_alone");
  std::filesystem::create_directories(folder);
  const ServedCheckpoint served = Abacus();
  for (const char* name : {"config.json", "generation_config.json"}) {
    const std::string from = absl::StrCat(served.files->folder(), "/", name);
    if (!std::filesystem::exists(from)) continue;
    std::filesystem::copy_file(from, absl::StrCat(folder, "/", name),
                               std::filesystem::copy_options::overwrite_existing);
  }
  const ModelDescription& model = served.files->description();
  Rank::Config config{.model = served.files->folder(),
                      .threads = 1,
                      .kv_memory_bytes = int64_t{512} << 20,
                      .max_context = 1024};
  for (const char* layout : {"dp2 ep", "tp2"}) {
    SCOPED_TRACE(layout);
    const Rank::Part part{.map = BuildShardMap(model, ParseLayout(layout).value(), 0).value(),
                          .rank = 1};
    config.model = served.files->folder();
    const auto with = Rank::Open(config, part, nullptr, {.digests = true});
    ASSERT_EQ(with.status(), absl::OkStatus());
    Server server({(*with)->files, (*with)->checkpoint});
    config.model = folder;
    EXPECT_TRUE(absl::IsNotFound(Rank::Open(config, part, nullptr).status()));
    PeerPlan plan;
    plan.peers.push_back(Serve(&server));
    const auto without =
        Rank::Open(config, part, nullptr, {.digests = true, .peers = std::move(plan)});
    rpc_.reset();
    ASSERT_EQ(without.status(), absl::OkStatus());
    EXPECT_EQ((*without)->identity, (*with)->identity);
    EXPECT_EQ((*without)->files, nullptr) << "nobody can read from it";
    EXPECT_EQ((*without)->read.disk, 0);
    EXPECT_GE((*without)->read.peers, (*with)->read.disk);
    WeightLedger ledger;
    EXPECT_EQ(ledger.Add("with", (*with)->WeightDigests()), absl::OkStatus());
    EXPECT_EQ(ledger.Add("without", (*without)->WeightDigests()), absl::OkStatus());
    // What was packed is the same too, byte for byte where it can be seen.
    const LoadedModel& a = *(*with)->model;
    const LoadedModel& b = *(*without)->model;
    EXPECT_EQ(a.weight_bytes, b.weight_bytes);
    const auto same = [](const DeviceTensor& x, const DeviceTensor& y) {
      const auto bytes = static_cast<size_t>(x.view.rows * x.view.cols * BytesOf(x.view.dtype));
      return std::memcmp(x.memory.get(), y.memory.get(), bytes) == 0;
    };
    EXPECT_TRUE(same(a.embedding, b.embedding));
    EXPECT_TRUE(same(a.final_norm, b.final_norm));
  }
}

}  // namespace
}  // namespace troupe
