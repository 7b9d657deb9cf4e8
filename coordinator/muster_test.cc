// Which workers become a replica, how its ranks gather, and which home takes a sequence.

#include "coordinator/muster.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "coordinator/home_choice.h"
#include "coordinator/rank_gathering.h"

namespace troupe {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

v1::RegisterWorkerRequest Worker(const std::string& name, const std::string& node,
                                 const std::string& device = "cpu") {
  v1::RegisterWorkerRequest request;
  request.set_worker(name);
  request.set_address(name + ":7101");
  request.set_incarnation(1);
  request.set_takes_assignment(true);
  request.set_node(node);
  request.set_device(device);
  return request;
}

std::vector<std::string> NamesOf(const std::vector<ReplicaMember>& members) {
  std::vector<std::string> names;
  for (const ReplicaMember& member : members) names.push_back(member.worker);
  return names;
}

TEST(LeastMemory, IsSharedByTheRanksOfAMachine) {
  const auto with = [](const char* name, const char* node, uint64_t bytes) {
    v1::RegisterWorkerRequest request = Worker(name, node);
    request.set_memory_bytes(bytes);
    return request;
  };
  EXPECT_EQ(LeastMemoryBytes({with("a", "n0", 900), with("b", "n0", 700), with("c", "n1", 500)}),
            450);
  EXPECT_EQ(LeastMemoryBytes({with("a", "n0", 900), with("b", "n1", 300)}), 300);
  EXPECT_EQ(LeastMemoryBytes({with("a", "n0", 900), with("b", "n1", 0)}), 0) << "not known";
}

TEST(Muster, TakesNeighboursFirst) {
  Muster muster(3);
  muster.Take(Worker("a", "n1"), 0);
  muster.Take(Worker("b", "n2"), 0);
  EXPECT_THAT(muster.NextReplica(), IsEmpty());
  EXPECT_THAT(muster.Wanting(), AllOf(HasSubstr("2 of 3"), HasSubstr("a, b"), HasSubstr("1 more")));
  muster.Take(Worker("c", "n2"), 0);
  EXPECT_THAT(NamesOf(muster.NextReplica()), ElementsAre("b", "c", "a"));
}

TEST(Muster, DoesNotMixKindsOfDevices) {
  Muster muster(2);
  muster.Take(Worker("a", "n1", "cuda:0"), 0);
  muster.Take(Worker("b", "n1", "cpu"), 0);
  EXPECT_THAT(muster.NextReplica(), IsEmpty());
  EXPECT_THAT(muster.Wanting(), HasSubstr("not of one kind"));
  muster.Take(Worker("c", "n1", "cuda:1"), 0);
  EXPECT_THAT(NamesOf(muster.NextReplica()), ElementsAre("a", "c"));
}

TEST(Muster, WhoEndedASessionMustAnnounceItselfAgain) {
  Muster muster(2);
  for (const char* name : {"a", "b", "c"}) muster.Take(Worker(name, "n"), 0);
  for (const char* name : {"a", "b"}) muster.workers().at(name).replica = "r";
  muster.Release("r", "a");
  EXPECT_THAT(NamesOf(muster.NextReplica()), ElementsAre("b", "c"));
  muster.Take(Worker("a", "n"), 5);
  EXPECT_THAT(NamesOf(muster.NextReplica()), ElementsAre("a", "b"));
}

TEST(Muster, AWorkerWithTheWholeModelIsNoRank) {
  const Muster muster(2);
  v1::RegisterWorkerRequest request = Worker("a", "n");
  request.set_takes_assignment(false);
  const absl::Status status = muster.Check(request);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("--sharded"));
}

class RankGatheringTest : public ::testing::Test {
 protected:
  static ReplicaSpec Spec() {
    ReplicaSpec spec{.name = "replica0", .epoch = 3};
    for (const char* name : {"a", "b", "c", "d"}) {
      spec.members.push_back({name, std::string(name) + ":1", "n", "cpu"});
    }
    spec.map = v1::ShardMap();
    spec.map->mutable_layout()->set_tp(2);
    spec.map->mutable_layout()->set_dp(2);
    spec.map->mutable_layout()->set_pp(1);
    return spec;
  }

  static v1::WorkerInfo Info(uint32_t pages, uint32_t rows = 8) {
    v1::WorkerInfo info;
    info.set_identity("same");
    info.set_max_rows(rows);
    info.set_heads_per_token(3);
    info.add_groups()->set_name("full");
    info.mutable_groups(0)->set_page_count(pages);
    info.mutable_groups(0)->set_page_bytes(100);
    return info;
  }

  RankGathering gathering_{Spec(), {.silent_us = 1000, .meeting_us = 500}, 0};
};

TEST_F(RankGatheringTest, TheLastContributionMakesTheMeeting) {
  for (const int rank : {2, 0, 3}) {
    EXPECT_FALSE(gathering_.OnContribution(rank, std::to_string(rank), 1)->has_value());
  }
  EXPECT_FALSE(gathering_.OnContribution(3, "again", 1).ok());
  const auto meeting = gathering_.OnContribution(1, "1", 1);
  ASSERT_TRUE(meeting.ok() && meeting->has_value());
  EXPECT_THAT((*meeting)->contributions(), ElementsAre("0", "1", "2", "3"));
}

TEST_F(RankGatheringTest, AHomeOffersTheLeastOfItsRanks) {
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_FALSE(gathering_.complete());
    ASSERT_TRUE(gathering_.OnInfo(rank, Info(10 + rank, 8 - rank), 1).ok());
  }
  EXPECT_TRUE(gathering_.complete());
  const v1::WorkerInfo second = gathering_.HomeInfo(1);
  EXPECT_EQ(second.worker(), "replica0");
  EXPECT_EQ(second.groups(0).page_count(), 12u);
  EXPECT_EQ(second.groups(0).page_bytes(), 200u);
  EXPECT_EQ(second.max_rows(), 5u);
  EXPECT_EQ(second.heads_per_token(), 3u);
}

TEST_F(RankGatheringTest, RanksOfDifferentModelsAreNamed) {
  ASSERT_TRUE(gathering_.OnInfo(1, Info(10), 1).ok());
  v1::WorkerInfo other = Info(10);
  other.set_identity("other");
  const absl::Status status = gathering_.OnInfo(2, other, 1);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("rank 2 (worker c at c:1)"),
                                                   HasSubstr("rank 1"), HasSubstr("identity")));
}

TEST_F(RankGatheringTest, NamesThoseThatKeepTheOthersWaiting) {
  EXPECT_TRUE(gathering_.Overdue(999).ok());
  v1::Loading loading;
  loading.set_what("weights");
  loading.set_bytes_done(5);
  gathering_.OnLoading(1, loading, 600);
  ASSERT_TRUE(gathering_.OnContribution(0, "", 700).ok());
  ASSERT_TRUE(gathering_.OnContribution(3, "", 700).ok());
  // Rank 2 has not said a word; rank 1 works; the others wait for the two.
  absl::Status late = gathering_.Overdue(1100);
  EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(late.message()),
              AllOf(HasSubstr("rank 2 (worker c at c:1): does not answer"),
                    Not(HasSubstr("rank 1")), Not(HasSubstr("rank 0"))));
  ASSERT_TRUE(gathering_.OnContribution(2, "", 1200).ok());
  late = gathering_.Overdue(1600);
  EXPECT_THAT(std::string(late.message()), HasSubstr("no progress in loading weights"));
  ASSERT_TRUE((*gathering_.OnContribution(1, "", 2000)).has_value());
  for (const int rank : {0, 1, 2}) ASSERT_TRUE(gathering_.OnInfo(rank, Info(1), 2100).ok());
  EXPECT_TRUE(gathering_.Overdue(2400).ok());
  EXPECT_THAT(std::string(gathering_.Overdue(2500).message()),
              HasSubstr("rank 3 (worker d at d:1): is not connected"));
}

TEST_F(RankGatheringTest, StatusShowsEachRank) {
  v1::Loading loading;
  loading.set_what("weights");
  gathering_.OnLoading(1, loading, 600);
  v1::WorkerStatus status;
  gathering_.Describe(1000, status);
  ASSERT_EQ(status.ranks_size(), 4);
  EXPECT_EQ(status.ranks(0).state(), v1::RankStatus::STATE_CONNECTING);
  EXPECT_EQ(status.ranks(0).silent_us(), 1000u);
  EXPECT_EQ(status.ranks(1).state(), v1::RankStatus::STATE_LOADING);
  EXPECT_EQ(status.ranks(1).loading().what(), "weights");
  EXPECT_EQ(status.map().layout().tp(), 2u);
}

TEST(ChooseHome, TakesTheOneWithTheFewestTokens) {
  EXPECT_EQ(ChooseHome({{.tokens = 10}, {.tokens = 5}, {.tokens = 5}}, 100), 1u);
  EXPECT_EQ(ChooseHome({{.tokens = 5, .sequences = 2}, {.tokens = 5, .sequences = 1}}, 100), 1u);
  // What it shares there costs nothing.
  EXPECT_EQ(ChooseHome({{.tokens = 10}, {.tokens = 60, .prefix_tokens = 64}}, 100), 1u);
  EXPECT_EQ(ChooseHome({{.tokens = 10}, {.tokens = 90, .prefix_tokens = 64}}, 100), 0u);
}

}  // namespace
}  // namespace troupe
