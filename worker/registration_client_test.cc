#include "worker/registration_client.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <future>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/thread_executor.h"
#include "rpc/rpc_server.h"
#include "troupe/v1/admin.grpc.pb.h"
#include "worker/registrar_actor.h"

namespace troupe {
namespace {

// Takes every registration, or leaves it without an answer.
class FakeAdmin final : public v1::Admin::CallbackService {
 public:
  explicit FakeAdmin(bool answers) : answers_(answers) {}

  grpc::ServerUnaryReactor* RegisterWorker(grpc::CallbackServerContext* context,
                                           const v1::RegisterWorkerRequest* request,
                                           v1::RegisterWorkerReply* reply) override {
    class Silent final : public grpc::ServerUnaryReactor {
      void OnCancel() override { Finish(grpc::Status::CANCELLED); }
      void OnDone() override { delete this; }
    };
    if (calls_++ == 0) first_.set_value(*request);
    if (!answers_) return new Silent;
    reply->set_heartbeat_ms(5);
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  std::future<v1::RegisterWorkerRequest> first() { return first_.get_future(); }
  int calls() const { return calls_; }

 private:
  const bool answers_;
  std::atomic<int> calls_ = 0;
  std::promise<v1::RegisterWorkerRequest> first_;
};

std::string Address(const char* name) {
  return absl::StrCat("unix:", ::testing::TempDir(), "troupe_", name, "_", getpid(), ".sock");
}

std::unique_ptr<RpcServer> Serve(const std::string& address, FakeAdmin* admin) {
  auto server = RpcServer::Start({.listen = address}, {admin});
  CHECK_OK(server);
  return *std::move(server);
}

TEST(RegistrationClientTest, FindsACoordinatorThatStartsLaterAndKeepsCalling) {
  const std::string address = Address("later");
  const auto client = DialCoordinator(address);
  ThreadExecutor executor({.thread_count = 1});
  v1::RegisterWorkerRequest request;
  request.set_worker("w");
  request.set_address("here:1");
  request.set_incarnation(9);
  auto registrar = Spawn<RegistrarActor>(
      executor, ActorOptions{.name = "registrar"},
      RegistrarActor::Config{.first_retry_ms = 5, .max_retry_ms = 20}, request, client.get());
  FakeAdmin admin(/*answers=*/true);
  auto first = admin.first();
  const auto server = Serve(address, &admin);
  ASSERT_EQ(first.wait_for(std::chrono::seconds(60)), std::future_status::ready);
  EXPECT_EQ(first.get().SerializeAsString(), request.SerializeAsString());
  const absl::Time limit = absl::Now() + absl::Seconds(60);
  while (admin.calls() < 3 && absl::Now() < limit) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_GE(admin.calls(), 3);
  registrar.Stop(StopMode::kDrop);
  registrar.Join();
}

TEST(RegistrationClientTest, ItsEndCancelsTheCallUnderWay) {
  const std::string address = Address("silent");
  FakeAdmin admin(/*answers=*/false);
  auto first = admin.first();
  const auto server = Serve(address, &admin);
  auto client = DialCoordinator(address);
  std::promise<absl::Status> done;
  client->Register({}, [&done](const auto& reply) { done.set_value(reply.status()); });
  ASSERT_EQ(first.wait_for(std::chrono::seconds(60)), std::future_status::ready);
  client.reset();
  EXPECT_EQ(done.get_future().get().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace troupe
