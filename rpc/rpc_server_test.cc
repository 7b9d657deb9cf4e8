#include "rpc/rpc_server.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "rpc/rpc_status.h"
#include "rpc/testing/raw_call.h"

namespace troupe {
namespace {

using testing::CheckHealth;
using testing::kNotServing;
using testing::kServing;

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
