// The coordinator over gRPC, against a worker whose every answer is known.

#include "coordinator/server.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "coordinator/scheduler/fake_worker.h"
#include "rpc/rpc_server.h"
#include "rpc/rpc_status.h"
#include "rpc/testing/raw_call.h"
#include "troupe/v1/worker.grpc.pb.h"

namespace troupe {
namespace {

using testing::FakeWorker;
using ::testing::HasSubstr;

constexpr uint32_t kVocabulary = 300;

v1::WorkerInfo Info() {
  v1::WorkerInfo info;
  info.set_worker("w");
  info.set_model("abacus");
  info.set_identity(std::string(32, 'i'));
  info.set_block_tokens(16);
  info.set_max_rows(32);
  info.set_max_step_tokens(256);
  info.set_max_context(4000);
  v1::KvGroup& group = *info.add_groups();
  group.set_name("full");
  group.set_kind(v1::KvGroup::KIND_FULL);
  group.set_page_bytes(1000);
  group.set_page_count(1000);
  return info;
}

class FakeWorkerService final : public v1::Worker::Service {
 public:
  grpc::Status Session(
      grpc::ServerContext* /*context*/,
      grpc::ServerReaderWriter<v1::SessionReply, v1::SessionRequest>* stream) override {
    v1::SessionRequest request;
    if (!stream->Read(&request) || !request.has_hello()) {
      return {grpc::StatusCode::FAILED_PRECONDITION, "no hello"};
    }
    testing::FakeCache cache;
    FakeWorker worker({.vocabulary = kVocabulary}, ReplicaInfo::From(Info()).value(),
                      request.hello().epoch(), cache, 1);
    v1::SessionReply reply;
    *reply.mutable_info() = Info();
    stream->Write(reply);
    while (stream->Read(&request)) {
      worker.Accept(request.plan());
      *reply.mutable_result() = worker.Run();
      stream->Write(reply);
    }
    return grpc::Status::OK;
  }
};

class CoordinatorServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SetLogLevel(LogLevel::kOff);
    folder_ = absl::StrCat(::testing::TempDir(), "troupe-XXXXXX");
    ASSERT_NE(mkdtemp(folder_.data()), nullptr);
    CoordinatorServer::Config config;
    config.rpc.listen = absl::StrCat("unix:", folder_, "/coordinator");
    config.model = absl::StrCat(std::getenv("TROUPE_SOURCE_DIR"), "/models/abacus");
    config.data_dir = folder_ + "/data";
    config.service.max_requests = 2;
    auto server = CoordinatorServer::Start(config);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = grpc::CreateChannel(config.rpc.listen, grpc::InsecureChannelCredentials());
    inference_ = v1::Inference::NewStub(channel_);
    admin_ = v1::Admin::NewStub(channel_);
  }

  void TearDown() override {
    server_.reset();
    worker_.reset();
    std::filesystem::remove_all(folder_);
  }

  void StartWorker() {
    const std::string address = absl::StrCat("unix:", folder_, "/worker");
    auto worker = RpcServer::Start({.listen = address}, {&worker_service_});
    ASSERT_TRUE(worker.ok()) << worker.status();
    worker_ = *std::move(worker);
    v1::RegisterWorkerRequest request;
    request.set_worker("w");
    request.set_address(address);
    request.set_incarnation(1);
    v1::RegisterWorkerReply reply;
    grpc::ClientContext context;
    ASSERT_TRUE(admin_->RegisterWorker(&context, request, &reply).ok());
    EXPECT_GT(reply.heartbeat_ms(), 0u);
    ASSERT_TRUE(Await([](const v1::ClusterStatus& status) { return status.ready(); }));
  }

  v1::ClusterStatus Status() {
    v1::ClusterStatus status;
    grpc::ClientContext context;
    EXPECT_TRUE(admin_->GetStatus(&context, {}, &status).ok());
    return status;
  }

  // Asks until `done`; false after a time that no healthy run needs.
  template <class Done>
  bool Await(Done done) {
    const absl::Time limit = absl::Now() + absl::Seconds(30);
    while (!done(Status())) {
      if (absl::Now() > limit) return false;
    }
    return true;
  }

  static v1::GenerateRequest Request(uint32_t max_tokens) {
    v1::GenerateRequest request;
    for (const uint32_t id : {11, 12, 13}) request.mutable_token_ids()->add_ids(id);
    request.mutable_options()->set_max_tokens(max_tokens);
    request.mutable_options()->set_ignore_eos(true);
    request.mutable_options()->mutable_sampling()->set_seed(5);
    request.mutable_options()->mutable_attention_gate()->set_mode(v1::AttentionGate::MODE_OFF);
    return request;
  }

  struct Answer {
    std::vector<v1::GenerateEvent> events;
    absl::Status status;
  };
  Answer Generate(const v1::GenerateRequest& request, grpc::ClientContext& context) {
    Answer answer;
    const auto reader = inference_->Generate(&context, request);
    v1::GenerateEvent event;
    while (reader->Read(&event)) answer.events.push_back(event);
    answer.status = FromGrpcStatus(reader->Finish());
    return answer;
  }
  absl::Status StatusOf(const v1::GenerateRequest& request, const std::string& tenant = "t") {
    grpc::ClientContext context;
    context.AddMetadata("troupe-tenant", tenant);
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    return Generate(request, context).status;
  }

  std::string folder_;
  FakeWorkerService worker_service_;
  std::unique_ptr<RpcServer> worker_;
  std::unique_ptr<CoordinatorServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> inference_;
  std::unique_ptr<v1::Admin::Stub> admin_;
};

TEST_F(CoordinatorServerTest, StreamsAGeneration) {
  StartWorker();
  v1::GenerateRequest request = Request(50);
  request.set_request_id("mine");
  grpc::ClientContext context;
  const Answer answer = Generate(request, context);
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  ASSERT_GE(answer.events.size(), 52u);
  EXPECT_EQ(answer.events.front().started().request_id(), "mine");
  EXPECT_EQ(answer.events.front().started().model(), "abacus");
  EXPECT_EQ(answer.events.front().started().seed(), 5u);
  testing::Tag tag = testing::RootTag("0", {});
  for (const uint32_t id : request.token_ids().ids()) tag = testing::NextTag(tag, id);
  uint32_t index = 0;
  for (const v1::GenerateEvent& event : answer.events) {
    if (!event.has_tokens()) continue;
    ASSERT_EQ(event.tokens().index(), index++);
    ASSERT_EQ(event.tokens().ids(0), testing::ExpectedToken(tag, 5, kVocabulary));
    tag = testing::NextTag(tag, event.tokens().ids(0));
  }
  EXPECT_EQ(index, 50u);
  const v1::Finished& finished = answer.events.back().finished();
  EXPECT_EQ(finished.reason(), v1::Finished::REASON_MAX_TOKENS);
  EXPECT_EQ(finished.usage().output_tokens(), 50u);
  const v1::ClusterStatus status = Status();
  EXPECT_EQ(status.requests_accepted(), 1u);
  EXPECT_EQ(status.requests_finished(), 1u);
  EXPECT_EQ(status.tokens_generated(), 50u);
  EXPECT_EQ(status.workers(0).worker(), "w");
}

TEST_F(CoordinatorServerTest, ACancelledCallFreesItsMemory) {
  StartWorker();
  {
    grpc::ClientContext context;
    const auto reader = inference_->Generate(&context, Request(3900));
    v1::GenerateEvent event;
    do {
      ASSERT_TRUE(reader->Read(&event));
    } while (!event.has_tokens());
    context.TryCancel();
    while (reader->Read(&event)) {
    }
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  EXPECT_TRUE(Await([](const v1::ClusterStatus& status) {
    return status.requests_cancelled() == 1 && status.workers(0).running() == 0 &&
           status.workers(0).groups(0).pages_used() == 0;
  }));
}

TEST_F(CoordinatorServerTest, ADeadlineEndsWhatWaits) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
  EXPECT_EQ(Generate(Request(5), context).status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(Await([](const auto& status) { return status.requests_cancelled() == 1; }));
}

TEST_F(CoordinatorServerTest, RefusesMoreRequestsThanItMayRun) {
  grpc::ClientContext contexts[2];
  std::unique_ptr<grpc::ClientReader<v1::GenerateEvent>> waiting[2];
  for (int i = 0; i < 2; ++i) waiting[i] = inference_->Generate(&contexts[i], Request(5));
  ASSERT_TRUE(Await([](const auto& status) { return status.requests_accepted() == 2; }));
  EXPECT_EQ(StatusOf(Request(5)).code(), absl::StatusCode::kResourceExhausted);
  StartWorker();
  for (auto& reader : waiting) {
    v1::GenerateEvent event;
    while (reader->Read(&event)) {
    }
    EXPECT_TRUE(reader->Finish().ok());
  }
  EXPECT_EQ(StatusOf(Request(5)), absl::OkStatus());
}

TEST_F(CoordinatorServerTest, MalformedRequestsDoNoHarm) {
  StartWorker();
  const auto bad = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(StatusOf({}).code(), bad);
  v1::GenerateRequest request = Request(5);
  request.set_request_id(std::string(257, 'x'));
  EXPECT_EQ(StatusOf(request).code(), bad);
  request = Request(5);
  request.mutable_options()->mutable_sampling()->set_top_p(2);
  EXPECT_EQ(StatusOf(request).code(), bad);
  EXPECT_EQ(StatusOf(Request(4001)).code(), bad) << "over the worker's context";
  EXPECT_EQ(StatusOf(Request(5), "no/such name").code(), bad);
  request = Request(5);
  request.mutable_chat()->set_template_variables_json("{");
  request.mutable_chat()->add_messages()->set_role("user");
  const absl::StatusCode chat = StatusOf(request).code();
  EXPECT_TRUE(chat == bad || chat == absl::StatusCode::kFailedPrecondition) << chat;
  EXPECT_FALSE(testing::RawCall(channel_, "/troupe.v1.Inference/Generate", "\xff\xff").ok());
  EXPECT_FALSE(testing::RawCall(channel_, "/troupe.v1.Admin/RegisterWorker", "\xff\xff").ok());
  EXPECT_EQ(StatusOf(Request(5)), absl::OkStatus());
}

TEST_F(CoordinatorServerTest, HealthFollowsTheWorkers) {
  constexpr char kInference[] = "troupe.v1.Inference";
  EXPECT_EQ(testing::CheckHealth(channel_, "").value(), testing::kServing);
  EXPECT_EQ(testing::CheckHealth(channel_, kInference).value(), testing::kNotServing);
  StartWorker();
  EXPECT_EQ(testing::CheckHealth(channel_, kInference).value(), testing::kServing);
  worker_->Shutdown(absl::ZeroDuration());
  ASSERT_TRUE(Await([](const auto& status) { return !status.ready(); }));
  EXPECT_EQ(testing::CheckHealth(channel_, kInference).value(), testing::kNotServing);
  EXPECT_EQ(testing::CheckHealth(channel_, "").value(), testing::kServing);
}

TEST_F(CoordinatorServerTest, ReflectionNamesTheServices) {
  constexpr char kListServices[] = "\x3a\x01*";
  const absl::StatusOr<std::string> reply = testing::RawCall(
      channel_, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", kListServices);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_THAT(*reply, HasSubstr("troupe.v1.Inference"));
  EXPECT_THAT(*reply, HasSubstr("troupe.v1.Admin"));
}

TEST_F(CoordinatorServerTest, AShutdownEndsWhatIsUnderWay) {
  StartWorker();
  grpc::ClientContext context;
  const auto reader = inference_->Generate(&context, Request(3900));
  v1::GenerateEvent event;
  ASSERT_TRUE(reader->Read(&event));
  server_.reset();
  while (reader->Read(&event)) {
  }
  EXPECT_FALSE(reader->Finish().ok());
}

TEST(CoordinatorServer, NamesTheFolderThatHasNoModel) {
  CoordinatorServer::Config config;
  config.model = "/no/such/folder";
  const auto server = CoordinatorServer::Start(config);
  ASSERT_FALSE(server.ok());
  EXPECT_THAT(std::string(server.status().message()), HasSubstr("/no/such/folder"));
}

}  // namespace
}  // namespace troupe
