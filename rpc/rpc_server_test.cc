#include "rpc/rpc_server.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <future>
#include <utility>

#include "absl/strings/str_cat.h"
#include "rpc/rpc_status.h"

namespace troupe {
namespace {

constexpr int kServing = 1;
constexpr int kNotServing = 2;

// grpc.health.v1.Health/Check by hand: the message is one string field, the answer one enum field.
absl::StatusOr<int> CheckHealth(const std::shared_ptr<grpc::Channel>& channel,
                                const std::string& service) {
  std::string request;
  if (!service.empty()) {
    request = absl::StrCat("\x0a", std::string(1, static_cast<char>(service.size())), service);
  }
  const grpc::Slice slice(request);
  const grpc::ByteBuffer request_bytes(&slice, 1);
  grpc::ByteBuffer reply_bytes;
  grpc::ClientContext context;
  grpc::GenericStub stub(channel);
  std::promise<grpc::Status> done;
  stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", grpc::StubOptions(), &request_bytes,
                 &reply_bytes, [&done](grpc::Status status) { done.set_value(std::move(status)); });
  const grpc::Status status = done.get_future().get();
  if (!status.ok()) return FromGrpcStatus(status);
  grpc::Slice reply;
  if (!reply_bytes.TrySingleSlice(&reply).ok() || reply.size() != 2) return 0;
  return reply.begin()[1];
}

std::unique_ptr<RpcServer> StartServer(const std::string& listen = "127.0.0.1:0") {
  auto server = RpcServer::Start({.listen = listen}, {});
  EXPECT_EQ(server.status(), absl::OkStatus());
  return *std::move(server);
}

TEST(RpcServer, HealthFollowsReadiness) {
  std::unique_ptr<RpcServer> server = StartServer();
  const auto channel = grpc::CreateChannel(absl::StrCat("127.0.0.1:", server->port()),
                                           grpc::InsecureChannelCredentials());
  EXPECT_EQ(CheckHealth(channel, "").value(), kServing);
  EXPECT_EQ(CheckHealth(channel, "troupe.v1.Cache").status().code(), absl::StatusCode::kNotFound);
  server->SetReady("troupe.v1.Cache", true);
  EXPECT_EQ(CheckHealth(channel, "troupe.v1.Cache").value(), kServing);
  EXPECT_EQ(CheckHealth(server->InProcessChannel(), "troupe.v1.Cache").value(), kServing);
  server->SetReady("troupe.v1.Cache", false);
  EXPECT_EQ(CheckHealth(channel, "troupe.v1.Cache").value(), kNotServing);
  server->Shutdown(absl::ZeroDuration());
  EXPECT_EQ(CheckHealth(channel, "").status().code(), absl::StatusCode::kUnavailable);
}

TEST(RpcServer, RefusesAnAddressInUse) {
  std::unique_ptr<RpcServer> first = StartServer();
  const std::string address = absl::StrCat("127.0.0.1:", first->port());
  auto second = RpcServer::Start({.listen = address}, {});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), ::testing::HasSubstr(address));
}

TEST(RpcStatus, CarriesEveryCode) {
  for (int code = 0; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), code == 0 ? "" : "why");
    EXPECT_EQ(static_cast<int>(ToGrpcStatus(status).error_code()), code);
    EXPECT_EQ(FromGrpcStatus(ToGrpcStatus(status)), status);
  }
}

}  // namespace
}  // namespace troupe
