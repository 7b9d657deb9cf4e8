#include "worker/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "base/check.h"
#include "worker/testing/session_client.h"
#include "worker/testing/test_config.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;
using testing::TestWorkerConfig;

struct Violation {
  const char* name;
  std::function<void(v1::StepPlan&)> spoil;  // a plan that would run slot 0, tokens [0, 3)
  const char* message;
};

// One server for all of them; a session each.
class PlanViolationTest : public ::testing::TestWithParam<Violation> {
 protected:
  static void SetUpTestSuite() {
    auto server = WorkerServer::Start(TestWorkerConfig("violation"));
    CHECK_OK(server);
    server_ = server->release();
  }
  static void TearDownTestSuite() { delete server_; }

  static uint64_t NextEpoch() { return ++epoch_; }

  static WorkerServer* server_;
  static uint64_t epoch_;
};

WorkerServer* PlanViolationTest::server_ = nullptr;
uint64_t PlanViolationTest::epoch_ = 0;

TEST_P(PlanViolationTest, EndsTheSessionAndNothingElse) {
  {
    SessionClient session(server_->address());
    ASSERT_TRUE(session.Hello(NextEpoch()).ok());
    v1::StepPlan plan = session.NextPlan();
    session.Add(plan, SessionClient::MakeSequence(0, {9, 8, 7}), 64);
    SessionClient::AddRow(plan, 0, 0, 3);
    GetParam().spoil(plan);
    const auto result = session.Run(plan);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(result.status().message(), HasSubstr(GetParam().message));
  }
  SessionClient session(server_->address());
  ASSERT_TRUE(session.Hello(NextEpoch()).ok());
  EXPECT_TRUE(session.Run(session.NextPlan()).ok());
}

INSTANTIATE_TEST_SUITE_P(
    Plans, PlanViolationTest,
    ::testing::Values(
        Violation{"Step", [](v1::StepPlan& p) { p.set_step(0); }, "step: found 0"},
        Violation{"FreeSlotFinished", [](v1::StepPlan& p) { p.add_finished_slots(4); },
                  "finished_slots: found slot 4, which is free"},
        Violation{"TakenSlot", [](v1::StepPlan& p) { *p.add_new_sequences() = p.new_sequences(0); },
                  "slot 0, which is taken"},
        Violation{"Token", [](v1::StepPlan& p) { p.mutable_new_sequences(0)->set_tokens(1, 512); },
                  "token 512"},
        Violation{"Sampling",
                  [](v1::StepPlan& p) {
                    p.mutable_new_sequences(0)->mutable_sampling()->set_temperature(-1);
                  },
                  "temperature"},
        Violation{
            "Gate",
            [](v1::StepPlan& p) { p.mutable_new_sequences(0)->mutable_gate()->set_threshold(2); },
            "gate of slot 0"},
        Violation{"GrantColumns", [](v1::StepPlan& p) { p.add_grant_slot(0); },
                  "grant_group entries"},
        Violation{"GrantPage", [](v1::StepPlan& p) { p.set_grant_page(0, 1 << 30); }, "grant page"},
        Violation{"GrantSlot", [](v1::StepPlan& p) { p.set_grant_slot(0, 7); },
                  "grant_slot: found slot 7"},
        Violation{"GrantBlock", [](v1::StepPlan& p) { p.set_grant_block(0, 32); }, "block 32"},
        Violation{"NotGranted", [](v1::StepPlan& p) { p.set_grant_block(0, 1); }, "never granted"},
        Violation{"CopyGroup",
                  [](v1::StepPlan& p) {
                    p.add_copy_group(9);
                    p.add_copy_from_page(0);
                    p.add_copy_to_page(1);
                  },
                  "copy_from group"},
        Violation{"LoadKey", [](v1::StepPlan& p) { p.add_loads()->set_block_key("short"); },
                  "block_key bytes"},
        Violation{"SecondRow", [](v1::StepPlan& p) { SessionClient::AddRow(p, 0, 3, 1); },
                  "second row"},
        Violation{"UnknownTokens", [](v1::StepPlan& p) { p.set_row_count(0, 4); },
                  "3 known tokens"},
        Violation{"NoTokens", [](v1::StepPlan& p) { p.set_row_count(0, 0); }, "row_count"},
        Violation{"TooManyTokens", [](v1::StepPlan& p) { p.set_row_count(0, 0xffffffff); },
                  "at most 64"}),
    [](const auto& info) { return info.param.name; });

TEST(WorkerServerTest, ShutdownEndsTheSessionAndSaysSo) {
  auto server = WorkerServer::Start(TestWorkerConfig("shutdown"));
  ASSERT_TRUE(server.ok()) << server.status();
  SessionClient session((*server)->address());
  ASSERT_TRUE(session.Hello(1).ok());
  v1::StepPlan plan = session.NextPlan();
  session.Add(plan, SessionClient::MakeSequence(0, std::vector<uint32_t>(64, 9)), 64);
  SessionClient::AddRow(plan, 0, 0, 64);
  session.Send(plan);
  ASSERT_TRUE(session.Receive().ok());
  session.Send(session.NextPlan());
  (*server)->Shutdown(absl::Seconds(10));
  // The plan under way may have been answered or have come too late.
  absl::StatusOr<v1::StepResult> result = session.Receive();
  if (result.ok()) result = session.Receive();
  EXPECT_EQ(result.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(result.status().message(), HasSubstr("shutting down"));
}

TEST(WorkerServerTest, SaysWhatIsWrongWithASetting) {
  WorkerServer::Config config = TestWorkerConfig("settings");
  config.rank.model = "/no/such/folder";
  EXPECT_THAT(WorkerServer::Start(config).status().message(), HasSubstr("/no/such/folder"));
  config = TestWorkerConfig("settings");
  config.rank.kv_memory_bytes = 1 << 20;
  EXPECT_THAT(WorkerServer::Start(config).status().message(), HasSubstr("1048576"));
  config = TestWorkerConfig("settings");
  config.rank.max_context = 1 << 30;
  EXPECT_THAT(WorkerServer::Start(config).status().message(), HasSubstr("max_context"));
  config = TestWorkerConfig("settings");
  config.rpc.listen = "0.0.0.0:0";
  EXPECT_THAT(WorkerServer::Start(config).status().message(), HasSubstr("advertise"));

  config = TestWorkerConfig("settings");
  config.rpc.listen = "127.0.0.1:0";
  config.name.clear();
  const auto first = WorkerServer::Start(config);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ((*first)->info().worker(), (*first)->address());
  config.rpc.listen = (*first)->address();
  EXPECT_THAT(WorkerServer::Start(config).status().message(), HasSubstr("port is taken"));
}

}  // namespace
}  // namespace troupe
