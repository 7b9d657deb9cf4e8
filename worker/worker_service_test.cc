#include "worker/worker_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/inbox.h"
#include "model/text/text.h"
#include "worker/server.h"
#include "worker/testing/queued_ops.h"
#include "worker/testing/session_client.h"
#include "worker/testing/test_config.h"

namespace troupe {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using testing::InSourceTree;
using ::testing::Property;
using ::testing::SizeIs;
using testing::TestWorkerConfig;

constexpr uint32_t kEndToken = 2;
constexpr char kQuestion[] = R"([{"role": "user", "content": "Compute 6511*417."}])";
// What the model's reference implementation answers in f32.
constexpr char kAnswer[] =
    "<think>\n6511=65*100+11\n417=41*10+7\n65*7=455\n11*7=77\n45500+77=45577\n45577=4557*10+7|7\n"
    "41=4*10+1\n65*1=65\n11*1=11\n6500+11=6511\n6511+4557=11068\n11068=1106*10+8|87\n4=0*10+4\n"
    "65*4=260\n11*4=44\n26000+44=26044\n26044+1106=27150\n27150*100+87=2715087\n"
    "6511*417=2715087\n</think>\n2715087";

std::vector<uint32_t> Question() {
  const auto chat = ChatTemplate::Load(InSourceTree("models/abacus"));
  const auto tokenizer = Tokenizer::Load(InSourceTree("models/abacus/tokenizer.json"));
  return *(*tokenizer)->Encode(*(*chat)->Render(kQuestion, {}));
}

// On a device that its caller waits for, and on one that runs behind.
enum class Device { kSynchronous, kQueued };

// One server for all tests on a device; a session each.
class WorkerServiceTest : public ::testing::TestWithParam<Device> {
 protected:
  static void TearDownTestSuite() { server_.reset(); }

  void SetUp() override {
    if (server_ != nullptr && device_ == GetParam()) return;
    server_.reset();
    WorkerServer::Config config = TestWorkerConfig("service");
    if (GetParam() == Device::kQueued) {
      config.rank.wrap_ops = [](std::unique_ptr<Ops> ops) {
        return std::make_unique<QueuedOps>(std::move(ops));
      };
    }
    auto server = WorkerServer::Start(config);
    CHECK_OK(server.status());
    server_ = *std::move(server);
    device_ = GetParam();
  }

  static uint64_t NextEpoch() { return ++epoch_; }

  static std::unique_ptr<WorkerServer> server_;
  static Device device_;
  static uint64_t epoch_;
};

std::unique_ptr<WorkerServer> WorkerServiceTest::server_;
Device WorkerServiceTest::device_ = Device::kSynchronous;
uint64_t WorkerServiceTest::epoch_ = 0;

INSTANTIATE_TEST_SUITE_P(Devices, WorkerServiceTest,
                         ::testing::Values(Device::kSynchronous, Device::kQueued),
                         [](const auto& info) {
                           return info.param == Device::kQueued ? "Queued" : "Synchronous";
                         });

TEST_P(WorkerServiceTest, AnswersHelloWithWhatItServes) {
  SessionClient session(server_->address());
  const auto info = session.Hello(NextEpoch());
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->worker(), "w");
  EXPECT_EQ(info->model(), "abacus");
  EXPECT_THAT(info->identity(), SizeIs(32));
  EXPECT_EQ(info->block_tokens(), 64U);
  EXPECT_EQ(info->max_rows(), 8U);
  EXPECT_EQ(info->max_step_tokens(), 64U);
  EXPECT_EQ(info->max_context(), 2048U);
  EXPECT_EQ(info->heads_per_token(), 64U);
  EXPECT_FLOAT_EQ(info->default_gate_threshold(), 0.3F);
  EXPECT_THAT(info->groups(), Contains(Property(&v1::KvGroup::kind, v1::KvGroup::KIND_FULL)));
  EXPECT_THAT(info->groups(), Contains(Property(&v1::KvGroup::kind, v1::KvGroup::KIND_COMPRESSED)));
  EXPECT_THAT(info->groups(), Contains(Property(&v1::KvGroup::window_tokens, 256)));
  for (const v1::KvGroup& group : info->groups()) EXPECT_GT(group.page_count(), 32U);
  EXPECT_TRUE(session.Close().ok());
}

TEST_P(WorkerServiceTest, AnswersAQuestionOnePlanAhead) {
  SessionClient session(server_->address());
  ASSERT_TRUE(session.Hello(NextEpoch()).ok());
  v1::NewSequence sequence = SessionClient::MakeSequence(3, Question());
  sequence.mutable_gate()->set_threshold(0.3F);
  auto tokens = session.Generate(sequence, 64, 300, kEndToken);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  const auto tokenizer = Tokenizer::Load(InSourceTree("models/abacus/tokenizer.json"));
  tokens->pop_back();
  EXPECT_EQ(*(*tokenizer)->Decode(*tokens, false), kAnswer);
}

TEST_P(WorkerServiceTest, TokensDoNotDependOnBatchOrChunks) {
  constexpr uint32_t kLimit = 12;
  SessionClient session(server_->address());
  ASSERT_TRUE(session.Hello(NextEpoch()).ok());
  v1::NewSequence sequence = SessionClient::MakeSequence(0, Question());
  sequence.mutable_sampling()->set_temperature(0.9F);
  sequence.mutable_sampling()->set_seed(77);
  sequence.mutable_sampling()->set_repetition_penalty(1.1F);
  const auto alone = session.Generate(sequence, 64, kLimit, kEndToken);
  ASSERT_TRUE(alone.ok()) << alone.status();
  const auto chunked = session.Generate(sequence, 5, kLimit, kEndToken);
  ASSERT_TRUE(chunked.ok()) << chunked.status();
  EXPECT_EQ(*chunked, *alone);

  // Among others of another kind, and with its output so far given as tokens.
  v1::StepPlan plan = session.NextPlan();
  v1::NewSequence moved = sequence;
  moved.set_slot(5);
  moved.mutable_tokens()->Add(alone->begin(), alone->begin() + 4);
  for (uint32_t slot = 1; slot < 4; ++slot) {
    session.Add(plan, SessionClient::MakeSequence(slot, {10 + slot, 20 + slot, 30}), 64);
    SessionClient::AddRow(plan, slot, 0, 3);
  }
  session.Add(plan, moved, 64);
  SessionClient::AddRow(plan, 5, 0, moved.tokens_size());
  std::vector<uint32_t> tokens(alone->begin(), alone->begin() + 4);
  for (uint32_t i = 0; tokens.size() < alone->size(); ++i) {
    const auto result = session.Run(plan);
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_EQ(result->sampled_slot(3), 5U);
    tokens.push_back(result->sampled_token(3));
    plan = session.NextPlan();
    for (uint32_t slot = 1; slot < 4; ++slot) SessionClient::AddRow(plan, slot, 3 + i, 1);
    SessionClient::AddRow(plan, 5, moved.tokens_size() + i, 1);
  }
  EXPECT_EQ(tokens, *alone);
}

// A row with log-probabilities comes and goes: its steps' tokens are drawn by the worker, those of
// the steps around them by the device.
TEST_P(WorkerServiceTest, RowsForHostAndDeviceMix) {
  constexpr uint32_t kSteps = 16;
  SessionClient session(server_->address());
  ASSERT_TRUE(session.Hello(NextEpoch()).ok());
  v1::NewSequence sequence = SessionClient::MakeSequence(0, {11, 12, 13});
  sequence.mutable_sampling()->set_temperature(1);
  sequence.mutable_sampling()->set_top_p(0.95F);
  sequence.mutable_sampling()->set_seed(5);
  const auto alone = session.Generate(sequence, 64, kSteps, /*stop=*/1U << 30);
  ASSERT_TRUE(alone.ok()) << alone.status();
  v1::NewSequence guest = SessionClient::MakeSequence(1, {21, 22});
  guest.mutable_sampling()->set_logprobs(1);
  std::vector<uint32_t> tokens;
  const auto receive = [&] {
    const auto result = session.Receive();
    ASSERT_TRUE(result.ok()) << result.status();
    tokens.push_back(result->sampled_token(0));
    EXPECT_EQ(result->logprobs_size() > 0, result->sampled_slot_size() > 1);
  };
  for (uint32_t step = 0; step < kSteps; ++step) {
    v1::StepPlan plan = session.NextPlan();
    if (step == 0) session.Add(plan, sequence, 64);
    SessionClient::AddRow(plan, 0, step == 0 ? 0 : 2 + step, step == 0 ? 3 : 1);
    if (step == 4) {
      session.Add(plan, guest, 64);
      SessionClient::AddRow(plan, 1, 0, 2);
    }
    if (step > 4 && step < 9) SessionClient::AddRow(plan, 1, step - 3, 1);
    session.Send(plan);
    if (step > 0) receive();
  }
  receive();
  EXPECT_EQ(tokens, *alone);
}

TEST_P(WorkerServiceTest, ReportsWhatAStepDid) {
  SessionClient session(server_->address());
  ASSERT_TRUE(session.Hello(NextEpoch()).ok());
  v1::StepPlan plan = session.NextPlan();
  v1::NewSequence closed = SessionClient::MakeSequence(0, {5, 6, 7});
  closed.mutable_gate()->set_threshold(1);
  v1::NewSequence open = SessionClient::MakeSequence(1, {5, 6, 7});
  open.mutable_sampling()->set_logprobs(2);
  session.Add(plan, closed, 64);
  session.Add(plan, open, 64);
  SessionClient::AddRow(plan, 0, 0, 2);
  SessionClient::AddRow(plan, 1, 0, 3);
  const auto result = session.Run(plan);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->row_heads_skipped_size(), 2);
  EXPECT_GT(result->row_heads_skipped(0), 0U);
  EXPECT_EQ(result->row_heads_skipped(1), 0U);
  ASSERT_EQ(result->sampled_slot_size(), 1);  // the first row ends before its last token
  EXPECT_EQ(result->sampled_slot(0), 1U);
  ASSERT_EQ(result->logprobs_size(), 1);
  EXPECT_EQ(result->logprobs(0).top_ids(0), result->sampled_token(0));
  EXPECT_EQ(result->logprobs(0).top_ids_size(), 2);
  EXPECT_FLOAT_EQ(result->logprobs(0).logprob(), result->logprobs(0).top_logprobs(0));
  EXPECT_EQ(result->expert_tokens_size(), 7 * 16);
  EXPECT_EQ(result->failed_slot_size(), 0);
  EXPECT_GT(result->forward_us(), 0U);
}

TEST_P(WorkerServiceTest, WithoutCacheLoadsMissAndStoresFail) {
  SessionClient session(server_->address());
  ASSERT_TRUE(session.Hello(NextEpoch()).ok());
  v1::StepPlan plan = session.NextPlan();
  v1::BlockTransfer transfer;
  transfer.set_block_key(std::string(32, 'k'));
  transfer.set_id(1);
  *plan.add_loads() = transfer;
  transfer.set_id(2);
  *plan.add_stores() = transfer;
  const auto result = session.Run(plan);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->transfers_size(), 2);
  EXPECT_EQ(result->transfers(0).outcome(), v1::TransferDone::OUTCOME_MISS);
  EXPECT_EQ(result->transfers(1).outcome(), v1::TransferDone::OUTCOME_FAILED);
}

TEST_P(WorkerServiceTest, ASessionsEndFreesItsSequences) {
  for (int round = 0; round < 3; ++round) {
    SessionClient session(server_->address());
    ASSERT_TRUE(session.Hello(NextEpoch()).ok());
    v1::StepPlan plan = session.NextPlan();
    for (uint32_t slot = 0; slot < 8; ++slot) {
      session.Add(plan, SessionClient::MakeSequence(slot, {9, 8, 7}), 64);
      SessionClient::AddRow(plan, slot, 0, 3);
    }
    const auto result = session.Run(plan);
    ASSERT_TRUE(result.ok()) << result.status();
    if (round == 1) {
      EXPECT_TRUE(session.Close().ok());
    }
  }
}

TEST_P(WorkerServiceTest, AHigherEpochTakesOverAndALowerIsRefused) {
  const uint64_t low = NextEpoch();
  const uint64_t middle = NextEpoch();
  SessionClient first(server_->address());
  ASSERT_TRUE(first.Hello(middle).ok());
  for (const uint64_t epoch : {low, middle}) {
    SessionClient refused(server_->address());
    const auto info = refused.Hello(epoch);
    EXPECT_EQ(info.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(info.status().message(), HasSubstr(absl::StrCat("more than ", middle)));
  }
  SessionClient second(server_->address());
  ASSERT_TRUE(second.Hello(NextEpoch()).ok());
  EXPECT_EQ(first.Receive().status().code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(second.Run(second.NextPlan()).ok());
}

TEST_P(WorkerServiceTest, RefusesWhatIsNotASession) {
  {
    SessionClient session(server_->address());
    const auto result = session.Run(session.NextPlan());
    EXPECT_THAT(result.status().message(), HasSubstr("before Hello"));
  }
  {
    SessionClient session(server_->address());
    EXPECT_THAT(session.Hello(0).status().message(), HasSubstr("epoch 0"));
  }
  {
    SessionClient session(server_->address());
    ASSERT_TRUE(session.Hello(NextEpoch()).ok());
    v1::StepPlan plan = session.NextPlan();
    plan.set_epoch(plan.epoch() + 1);
    EXPECT_THAT(session.Run(plan).status().message(), HasSubstr("found epoch"));
  }
  {
    SessionClient session(server_->address());
    ASSERT_TRUE(session.Hello(NextEpoch()).ok());
    EXPECT_THAT(session.Hello(NextEpoch()).status().message(), HasSubstr("second Hello"));
  }
}

// Against an executor that never answers.
class WorkerServiceQueueTest : public ::testing::Test {
 protected:
  WorkerServiceQueueTest() {
    const std::string listen = TestWorkerConfig("queue").rpc.listen;
    auto server = RpcServer::Start({.listen = listen}, {&service_});
    CHECK_OK(server);
    server_ = *std::move(server);
    session_.emplace(listen);
  }
  ~WorkerServiceQueueTest() override {
    executor_->Close(absl::OkStatus());
    session_.reset();
    server_->Shutdown(absl::ZeroDuration());
  }

  template <class T>
  std::optional<T> Next() {
    auto message = executor_->Receive(absl::Seconds(30));
    if (!message.has_value() || !std::holds_alternative<T>(*message)) return std::nullopt;
    return std::get<T>(*std::move(message));
  }

  const std::shared_ptr<Inbox<ExecutorMessage>> executor_ =
      Inbox<ExecutorMessage>::Create("executor", 64);
  WorkerService service_{{.max_queued_plans = 2}, executor_->ref(), &RealClock::Get()};
  std::unique_ptr<RpcServer> server_;
  std::optional<SessionClient> session_;
};

TEST_F(WorkerServiceQueueTest, TakesNoSessionBeforeItIsOpen) {
  EXPECT_EQ(session_->Hello(1).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(WorkerServiceQueueTest, BoundsThePlansWithoutAResult) {
  service_.Open({});
  ASSERT_TRUE(session_->Hello(1).ok());
  const auto opened = Next<OpenSession>();
  ASSERT_TRUE(opened.has_value());
  for (int i = 0; i < 2; ++i) {
    session_->Send(session_->NextPlan());
    ASSERT_TRUE(Next<RunPlan>().has_value());
  }
  opened->outlet->Send({});
  ASSERT_TRUE(session_->Receive().ok());
  session_->Send(session_->NextPlan());
  ASSERT_TRUE(Next<RunPlan>().has_value());
  session_->Send(session_->NextPlan());
  const absl::Status status = session_->Receive().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("3 plans without a result, wanted at most 2"));
  const auto closed = Next<CloseSession>();
  ASSERT_TRUE(closed.has_value());
  EXPECT_EQ(closed->epoch, 1U);
}

TEST_F(WorkerServiceQueueTest, ShutdownGoesThroughTheExecutor) {
  service_.Open({});
  ASSERT_TRUE(session_->Hello(1).ok());
  const auto opened = Next<OpenSession>();
  ASSERT_TRUE(opened.has_value());
  session_->Send(session_->NextPlan());
  ASSERT_TRUE(Next<RunPlan>().has_value());
  service_.BeginShutdown();
  const auto closed = Next<CloseSession>();
  ASSERT_TRUE(closed.has_value());
  opened->outlet->Send({});
  opened->outlet->End(closed->status);
  EXPECT_TRUE(session_->Receive().ok());
  EXPECT_EQ(session_->Receive().status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace troupe
