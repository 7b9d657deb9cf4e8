// Which workers the fleet takes, and what becomes of requests while there is none.

#include "coordinator/fleet_actor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/log.h"
#include "coordinator/testing/sim_cluster.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::SimCluster;
using testing::SimMachine;
using testing::SimStream;
using testing::SmallWorkerInfo;
using State = v1::WorkerStatus;

class FleetActorTest : public ::testing::Test {
 protected:
  FleetActorTest() : cluster_(MakeConfig(), LoadTokenizer()) { SetLogLevel(LogLevel::kOff); }

  static SimCluster::Config MakeConfig() {
    SimCluster::Config config = {.seed = 7};
    config.fleet.no_worker_timeout_ms = 2000;
    config.fleet.worker_timeout_ms = 1000;
    config.fleet.heartbeat_ms = 321;
    config.fleet.max_pending = 3;
    config.machine.worker.vocabulary = 300;
    return config;
  }

  static std::shared_ptr<const Tokenizer> LoadTokenizer() {
    return Tokenizer::Load(
               absl::StrCat(std::getenv("TROUPE_SOURCE_DIR"), "/models/abacus/tokenizer.json"))
        .value();
  }

  SimMachine& StartMachine(const std::string& name, char identity = 'i') {
    v1::WorkerInfo info = SmallWorkerInfo(name);
    info.set_identity(std::string(32, identity));
    SimMachine& machine = cluster_.AddMachine(std::move(info));
    machine.Start(cluster_.fleet());
    RunFor(50);
    return machine;
  }

  static JobActor::Request Request(uint32_t max_tokens = 5) {
    JobActor::Request request = SimCluster::Request({11, 12, 13}, max_tokens);
    request.body.mutable_options()->set_ignore_eos(true);
    return request;
  }

  void RunFor(int64_t ms) { cluster_.sim().RunFor(absl::Milliseconds(ms)); }
  State::State StateOf(const std::string& name) { return cluster_.DescribeWorker(name).state(); }
  absl::StatusCode CodeOf(const SimStream& stream) {
    return stream.closed.value_or(absl::UnknownError("still open")).code();
  }

  SimCluster cluster_;
};

TEST_F(FleetActorTest, AWorkerThatAnnouncesItselfIsDialled) {
  StartMachine("a");
  const v1::WorkerStatus status = cluster_.DescribeWorker("a");
  EXPECT_EQ(status.state(), State::STATE_READY);
  EXPECT_EQ(status.address(), "sim:0");
  EXPECT_EQ(status.info().model(), "fake");
  EXPECT_THAT(cluster_.readiness(), ElementsAre(true));
  RunFor(5000);
  EXPECT_EQ(cluster_.machine(0).sessions(), 1u) << "heartbeats dial nobody who is there";
}

TEST_F(FleetActorTest, MalformedRegistrationsAreRefused) {
  EXPECT_EQ(cluster_.Register("", "sim:0", 1).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(cluster_.Register(std::string(257, 'x'), "sim:0", 1).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(cluster_.Register("a", "", 1).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(cluster_.Describe().workers_size(), 0);
}

TEST_F(FleetActorTest, ANameBelongsToOneLiveWorker) {
  SimMachine& machine = StartMachine("a");
  cluster_.AddMachine(SmallWorkerInfo("a"));
  EXPECT_EQ(cluster_.Register("a", "sim:0", 1)->heartbeat_ms(), 321u);
  const absl::Status taken = cluster_.Register("a", "sim:1", 2).status();
  EXPECT_EQ(taken.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(taken.message()), HasSubstr("sim:0"));
  machine.Kill();
  RunFor(50);
  EXPECT_EQ(StateOf("a"), State::STATE_LOST);
  cluster_.machine(1).Start(cluster_.fleet());
  RunFor(50);
  EXPECT_EQ(StateOf("a"), State::STATE_READY);
  EXPECT_EQ(cluster_.DescribeWorker("a").address(), "sim:1");
}

TEST_F(FleetActorTest, ARestartedProcessGetsANewSession) {
  SimMachine& machine = StartMachine("a");
  const uint64_t epoch = cluster_.DescribeWorker("a").epoch();
  SimStream& stream = cluster_.Submit(Request(200));
  RunFor(30);
  ASSERT_FALSE(stream.closed.has_value());
  machine.RestartSilently(cluster_.fleet());
  RunFor(1000);
  EXPECT_EQ(machine.sessions(), 2u);
  EXPECT_EQ(StateOf("a"), State::STATE_READY);
  EXPECT_GT(cluster_.DescribeWorker("a").epoch(), epoch);
  EXPECT_EQ(CodeOf(stream), absl::StatusCode::kOk);
  EXPECT_EQ(stream.tokens, cluster_.Expect(stream.request, machine.info()).tokens);
  EXPECT_EQ(stream.finished->usage().worker_changes(), 1u);
}

TEST_F(FleetActorTest, AnotherModelIsRefusedUntilItsProcessIsStartedAnew) {
  StartMachine("a");
  SimMachine& other = StartMachine("b", 'x');
  RunFor(1000);
  EXPECT_EQ(StateOf("b"), State::STATE_LOST);
  EXPECT_EQ(other.sessions(), 1u) << "not dialled again and again";
  EXPECT_EQ(StateOf("a"), State::STATE_READY);
  other.info().set_identity(std::string(32, 'i'));
  other.Kill();
  other.Start(cluster_.fleet());
  RunFor(1000);
  EXPECT_EQ(StateOf("b"), State::STATE_READY);
}

TEST_F(FleetActorTest, AnIncarnationOfZeroIsAsGoodAsAny) {
  cluster_.AddMachine(SmallWorkerInfo("a"));
  EXPECT_TRUE(cluster_.Register("a", "sim:0", 0).ok());
  RunFor(50);
  EXPECT_NE(cluster_.DescribeWorker("a").epoch(), 0u) << "it was dialled";
}

TEST_F(FleetActorTest, AWorkerLostForLongIsForgotten) {
  StartMachine("a").Kill();
  RunFor(500);
  EXPECT_EQ(StateOf("a"), State::STATE_LOST);
  EXPECT_THAT(cluster_.readiness(), ElementsAre(true, false));
  RunFor(1000);
  EXPECT_EQ(cluster_.Describe().workers_size(), 0);
}

TEST_F(FleetActorTest, AWorkerThatBreaksTheProtocolGetsANewSession) {
  SimMachine& machine = StartMachine("a");
  SimStream& stream = cluster_.Submit(Request(200));
  RunFor(30);
  machine.AnnounceAgainInSession();
  RunFor(1000);
  EXPECT_EQ(machine.sessions(), 2u) << "a second WorkerInfo ends a session";
  EXPECT_EQ(CodeOf(stream), absl::StatusCode::kOk);
}

TEST_F(FleetActorTest, RequestsWaitForAWorker) {
  SimStream& stream = cluster_.Submit(Request());
  RunFor(1500);
  EXPECT_FALSE(stream.closed.has_value());
  StartMachine("a");
  RunFor(200);
  EXPECT_EQ(CodeOf(stream), absl::StatusCode::kOk);
  EXPECT_EQ(stream.tokens.size(), 5u);
}

TEST_F(FleetActorTest, RequestsThatFindNoWorkerFailInTime) {
  SimStream& stream = cluster_.Submit(Request());
  RunFor(3000);
  EXPECT_EQ(CodeOf(stream), absl::StatusCode::kUnavailable);
  EXPECT_GE(stream.closed_us - stream.accepted_us, 2'000'000);
  EXPECT_LE(stream.closed_us - stream.accepted_us, 2'200'000);
}

TEST_F(FleetActorTest, RequestsWhoseWorkerIsLostWaitAsLong) {
  SimMachine& machine = StartMachine("a");
  SimStream& stream = cluster_.Submit(Request(500));
  RunFor(50);
  ASSERT_GT(stream.tokens.size(), 0u);
  machine.Kill();
  const int64_t killed_us = cluster_.NowUs();
  RunFor(3000);
  EXPECT_EQ(CodeOf(stream), absl::StatusCode::kUnavailable);
  EXPECT_GE(stream.closed_us - killed_us, 2'000'000);
  EXPECT_LE(stream.closed_us - killed_us, 2'200'000);
}

TEST_F(FleetActorTest, WhoGivesUpFreesItsPagesAtOnce) {
  StartMachine("a");
  SimStream& cancelled = cluster_.Submit(Request(1500));
  SimStream& slow = cluster_.Submit(Request(1500));
  slow.give_up_after = 20;
  RunFor(50);
  ASSERT_GT(cancelled.tokens.size(), 0u);
  EXPECT_EQ(CodeOf(slow), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(cluster_.DescribeWorker("a").running(), 1u);
  EXPECT_GT(cluster_.DescribeWorker("a").groups(0).pages_used(), 0u);
  cluster_.Cancel(cancelled);
  RunFor(10);
  EXPECT_EQ(CodeOf(cancelled), absl::StatusCode::kCancelled);
  const v1::WorkerStatus status = cluster_.DescribeWorker("a");
  EXPECT_EQ(status.running(), 0u);
  for (const v1::GroupStatus& group : status.groups()) EXPECT_EQ(group.pages_used(), 0u);
}

TEST_F(FleetActorTest, SoManyMayWaitThoseThatAreGoneNotCounted) {
  std::vector<SimStream*> waiting;
  for (int i = 0; i < 3; ++i) waiting.push_back(&cluster_.Submit(Request()));
  RunFor(10);
  SimStream& refused = cluster_.Submit(Request());
  RunFor(10);
  EXPECT_EQ(CodeOf(refused), absl::StatusCode::kUnavailable);
  for (SimStream* stream : waiting) cluster_.Cancel(*stream);
  RunFor(200);
  SimStream& taken = cluster_.Submit(Request());
  RunFor(10);
  EXPECT_FALSE(taken.closed.has_value());
  EXPECT_EQ(CodeOf(*waiting[0]), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace troupe
