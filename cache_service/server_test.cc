#include "cache_service/server.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <future>

#include "absl/strings/str_cat.h"
#include "cache_client/cache_client.h"
#include "cache_service/test_values.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

class CacheServerTest : public ::testing::Test {
 protected:
  CacheServerTest() : dir_(absl::StrCat(::testing::TempDir(), "cache_server_test.", getpid())) {
    std::filesystem::remove_all(dir_);
  }
  ~CacheServerTest() override { std::filesystem::remove_all(dir_); }

  std::unique_ptr<CacheServer> Start(const std::string& dir) {
    auto server = CacheServer::Start({.store = {.data_dir = dir}});
    EXPECT_EQ(server.status(), absl::OkStatus());
    return *std::move(server);
  }

  static CacheClient::Key KeyOf(uint64_t number) {
    const ValueId id = TestId(number);
    return {.block_key = id.block_key, .tenant_namespace = id.tenant_namespace, .group = id.group};
  }

  static absl::Status Put(CacheClient* client, uint64_t number) {
    std::promise<absl::Status> done;
    client->Put(std::string(32, 'm'), {{KeyOf(number), TestValue(number)}},
                [&done](const auto& counts) { done.set_value(counts.status()); });
    return done.get_future().get();
  }

  // The value, or none for every kind of miss.
  static std::optional<std::string> Get(CacheClient* client, uint64_t number) {
    std::optional<std::string> found;
    std::promise<void> done;
    client->Get(
        std::string(32, 'm'), {KeyOf(number)},
        [&found](size_t, auto value) { found = value.value_or(std::nullopt); },
        [&done](const absl::Status&) { done.set_value(); });
    done.get_future().wait();
    return found;
  }

  const std::string dir_;
};

TEST_F(CacheServerTest, ValuesSurviveARestartAndTheClientFindsItsWayBack) {
  auto server = Start(dir_);
  const int port = server->port();
  auto client = CacheClient::Connect(absl::StrCat("127.0.0.1:", port), {});
  for (uint64_t i = 0; i < 5; ++i) ASSERT_EQ(Put(client.get(), i), absl::OkStatus());
  server->Shutdown(absl::Seconds(5));
  server.reset();
  EXPECT_EQ(Put(client.get(), 9).code(), absl::StatusCode::kUnavailable);

  CacheServer::Config config = {.store = {.data_dir = dir_}};
  config.rpc.listen = absl::StrCat("127.0.0.1:", port);
  auto again = CacheServer::Start(config);
  ASSERT_EQ(again.status(), absl::OkStatus());
  auto fresh = CacheClient::Connect(absl::StrCat("127.0.0.1:", port), {});
  for (uint64_t i = 0; i < 5; ++i) EXPECT_EQ(Get(fresh.get(), i), TestValue(i));
  // The old client waits out its back-off, which is bounded.
  while (Get(client.get(), 0) != TestValue(0)) continue;
}

TEST_F(CacheServerTest, SeveralServersShareAProcess) {
  auto first = Start(dir_ + "/first");
  auto second = Start(dir_ + "/second");
  CacheClient to_first(first->InProcessChannel(), {});
  CacheClient to_second(second->InProcessChannel(), {});
  ASSERT_EQ(Put(&to_first, 1), absl::OkStatus());
  EXPECT_EQ(Get(&to_first, 1), TestValue(1));
  EXPECT_EQ(Get(&to_second, 1), std::nullopt);
}

TEST_F(CacheServerTest, StartSaysWhyItCannot) {
  auto server = Start(dir_);
  const auto same_folder = CacheServer::Start({.store = {.data_dir = dir_}});
  EXPECT_THAT(std::string(same_folder.status().message()), HasSubstr(dir_));
  const std::string address = absl::StrCat("127.0.0.1:", server->port());
  const auto same_port =
      CacheServer::Start({.rpc = {.listen = address}, .store = {.data_dir = dir_ + "/other"}});
  EXPECT_THAT(std::string(same_port.status().message()), HasSubstr(address));
}

TEST_F(CacheServerTest, ServesHealthAndReflection) {
  auto server = Start(dir_);
  const auto channel = grpc::CreateChannel(absl::StrCat("127.0.0.1:", server->port()),
                                           grpc::InsecureChannelCredentials());
  // Both answer "unimplemented" where they are not registered.
  for (const char* method : {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                             "/grpc.health.v1.Health/Check"}) {
    grpc::ClientContext context;
    grpc::GenericStub stub(channel);
    const grpc::Slice empty_message;
    const grpc::ByteBuffer request(&empty_message, 1);
    grpc::ByteBuffer reply;
    std::promise<grpc::Status> done;
    stub.UnaryCall(&context, method, grpc::StubOptions(), &request, &reply,
                   [&done](grpc::Status status) { done.set_value(std::move(status)); });
    EXPECT_NE(done.get_future().get().error_code(), grpc::StatusCode::UNIMPLEMENTED) << method;
  }
}

}  // namespace
}  // namespace troupe
