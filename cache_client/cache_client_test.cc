// The client against a service that misbehaves on purpose; against the real one it is tested in
// cache_service/cache_service_test.cc.

#include "cache_client/cache_client.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <functional>
#include <future>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cache_client/crc32c.h"
#include "rpc/rpc_server.h"
#include "troupe/v1/cache.grpc.pb.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;

using Writer = grpc::ServerWriter<v1::ValueChunk>;

class FakeCache final : public v1::Cache::Service {
 public:
  std::function<grpc::Status(grpc::ServerContext*, Writer*)> get;
  std::vector<v1::PutChunk> put_chunks;
  grpc::Status put_status;
  int stat_answers = 0;

  grpc::Status Stat(grpc::ServerContext*, const v1::StatRequest*, v1::StatReply* reply) override {
    for (int i = 0; i < stat_answers; ++i) reply->add_found(i % 2 == 0);
    return grpc::Status::OK;
  }
  grpc::Status Get(grpc::ServerContext* context, const v1::GetRequest*, Writer* writer) override {
    return get(context, writer);
  }
  grpc::Status Put(grpc::ServerContext*, grpc::ServerReader<v1::PutChunk>* reader,
                   v1::PutReply* reply) override {
    if (!put_status.ok()) return put_status;
    for (v1::PutChunk chunk; reader->Read(&chunk);) put_chunks.push_back(chunk);
    reply->set_stored(7);
    return grpc::Status::OK;
  }
};

v1::ValueChunk Chunk(uint32_t index, const std::string& value, uint64_t offset, size_t count) {
  v1::ValueChunk chunk;
  chunk.set_index(index);
  chunk.set_found(true);
  chunk.set_value_bytes(value.size());
  chunk.set_crc32c(Crc32c(value));
  chunk.set_offset(offset);
  chunk.set_data(value.substr(offset, count));
  return chunk;
}

v1::ValueChunk Miss(uint32_t index) {
  v1::ValueChunk chunk;
  chunk.set_index(index);
  return chunk;
}

struct GetAnswer {
  std::vector<std::string> values;  // "miss", "error CODE", or the bytes
  absl::Status status;
};

class CacheClientTest : public ::testing::Test {
 protected:
  CacheClientTest() {
    auto server = RpcServer::Start({}, {&fake_});
    EXPECT_EQ(server.status(), absl::OkStatus());
    server_ = *std::move(server);
    client_ = std::make_unique<CacheClient>(server_->InProcessChannel(), CacheClient::Config());
  }

  GetAnswer Get(size_t key_count) {
    GetAnswer answer;
    std::promise<void> done;
    client_->Get(
        std::string(32, 'i'), std::vector<CacheClient::Key>(key_count),
        [&answer](size_t index, absl::StatusOr<std::optional<std::string>> value) {
          EXPECT_EQ(index, answer.values.size());
          if (!value.ok()) {
            answer.values.push_back("error " + absl::StatusCodeToString(value.status().code()));
          } else {
            answer.values.push_back(value->value_or("miss"));
          }
        },
        [&](absl::Status status) {
          answer.status = std::move(status);
          done.set_value();
        });
    done.get_future().wait();
    return answer;
  }

  absl::StatusOr<CacheClient::PutCounts> Put(std::vector<CacheClient::Value> values) {
    std::promise<absl::StatusOr<CacheClient::PutCounts>> done;
    client_->Put(std::string(32, 'i'), std::move(values),
                 [&done](absl::StatusOr<CacheClient::PutCounts> counts) {
                   done.set_value(std::move(counts));
                 });
    return done.get_future().get();
  }

  FakeCache fake_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<CacheClient> client_;
};

TEST_F(CacheClientTest, GetJoinsChunksAndReportsMisses) {
  fake_.get = [](grpc::ServerContext*, Writer* writer) {
    writer->Write(Chunk(0, "hello world", 0, 5));
    writer->Write(Chunk(0, "hello world", 5, 6));
    writer->Write(Miss(1));
    writer->Write(Chunk(2, "x", 0, 1));
    return grpc::Status::OK;
  };
  const GetAnswer answer = Get(3);
  EXPECT_EQ(answer.status, absl::OkStatus());
  EXPECT_THAT(answer.values, ElementsAre("hello world", "miss", "x"));
}

TEST_F(CacheClientTest, DamagedValuesAreNotHandedOut) {
  fake_.get = [](grpc::ServerContext*, Writer* writer) {
    v1::ValueChunk damaged = Chunk(0, "hello", 0, 5);
    damaged.set_data("hellp");
    writer->Write(damaged);
    writer->Write(Chunk(1, "x", 0, 1));
    return grpc::Status::OK;
  };
  const GetAnswer answer = Get(2);
  EXPECT_EQ(answer.status, absl::OkStatus());
  EXPECT_THAT(answer.values, ElementsAre("error DATA_LOSS", "x"));
}

TEST_F(CacheClientTest, ProtocolErrorsEndTheCall) {
  const std::vector<std::vector<v1::ValueChunk>> streams = {
      {Miss(1)},                                           // wrong order
      {Miss(0), Miss(1), Miss(2)},                         // one too many
      {Chunk(0, "hello", 1, 4)},                           // starts in the middle
      {Chunk(0, "hello", 0, 2), Chunk(0, "hello", 3, 2)},  // a gap
      {Miss(0)},                                           // one too few
      {Miss(0), Chunk(1, "hello", 0, 2)},                  // unfinished
  };
  for (const auto& stream : streams) {
    fake_.get = [&stream](grpc::ServerContext*, Writer* writer) {
      for (const v1::ValueChunk& chunk : stream) writer->Write(chunk);
      return grpc::Status::OK;
    };
    EXPECT_EQ(Get(2).status.code(), absl::StatusCode::kInternal) << stream[0].DebugString();
  }
}

TEST_F(CacheClientTest, StatMustAnswerEveryKey) {
  const auto stat = [this](size_t key_count) {
    std::promise<absl::StatusOr<std::vector<bool>>> done;
    client_->Stat(std::string(32, 'i'), std::vector<CacheClient::Key>(key_count),
                  [&done](auto found) { done.set_value(std::move(found)); });
    return done.get_future().get();
  };
  fake_.stat_answers = 3;
  EXPECT_THAT(stat(3).value(), ElementsAre(true, false, true));
  EXPECT_EQ(stat(4).status().code(), absl::StatusCode::kInternal);
}

TEST_F(CacheClientTest, PutCutsValuesIntoChunks) {
  const std::string large(600 << 10, 'v');
  const CacheClient::Key key = {.block_key = "k", .tenant_namespace = "t", .group = 3};
  EXPECT_EQ(Put({{.key = key, .bytes = large}, {.key = {}, .bytes = "small"}})->stored, 7);
  ASSERT_EQ(fake_.put_chunks.size(), 4u);
  EXPECT_EQ(fake_.put_chunks[0].key().group(), 3u);
  EXPECT_EQ(fake_.put_chunks[0].crc32c(), Crc32c(large));
  EXPECT_EQ(fake_.put_chunks[0].value_bytes(), large.size());
  EXPECT_EQ(fake_.put_chunks[2].offset(), 512u << 10);
  EXPECT_FALSE(fake_.put_chunks[2].has_key());
  EXPECT_EQ(fake_.put_chunks[3].data(), "small");
}

TEST_F(CacheClientTest, PutReportsWhyTheServiceRefused) {
  fake_.put_status = grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "full");
  const absl::Status status = Put({{.key = {}, .bytes = std::string(8 << 20, 'v')}}).status();
  EXPECT_EQ(status, absl::ResourceExhaustedError("full"));
}

TEST_F(CacheClientTest, AnAbsentServiceIsUnavailable) {
  client_ = CacheClient::Connect(absl::StrCat("127.0.0.1:", server_->port()), {});
  EXPECT_EQ(Put({})->stored, 7);
  server_->Shutdown(absl::ZeroDuration());
  EXPECT_EQ(Put({}).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(CacheClientTest, TheEndOfTheClientCancelsCallsUnderWay) {
  std::promise<void> started;
  fake_.get = [&started](grpc::ServerContext* context, Writer*) {
    started.set_value();
    while (!context->IsCancelled()) std::this_thread::yield();
    return grpc::Status::CANCELLED;
  };
  absl::Status status;
  client_->Get(
      std::string(32, 'i'), std::vector<CacheClient::Key>(1),
      [](size_t, const auto&) { ADD_FAILURE(); },
      [&status](absl::Status result) { status = std::move(result); });
  started.get_future().wait();
  client_.reset();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace troupe
