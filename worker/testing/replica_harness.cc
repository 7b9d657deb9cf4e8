#include "worker/testing/replica_harness.h"

#include <thread>
#include <utility>

#include "base/check.h"
#include "base/status_util.h"
#include "sharding/layout_rules.h"
#include "worker/gloo_communicator.h"
#include "worker/in_process_communicator.h"
#include "worker/testing/local_meeting.h"

namespace troupe {
namespace {

using Worlds = std::vector<absl::StatusOr<std::unique_ptr<Communicator>>>;

Worlds ConnectInMemory(const std::vector<Ops*>& ops) {
  Worlds worlds;
  for (auto& world : MakeInProcessCommunicators(ops)) worlds.emplace_back(std::move(world));
  return worlds;
}

Worlds ConnectByGloo(const std::vector<Ops*>& ops) {
  const auto size = static_cast<int>(ops.size());
  auto place = std::make_shared<testing::LocalMeetingPlace>(size);
  Worlds worlds(ops.size());
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      testing::LocalMeeting meeting(place, rank);
      worlds[rank] = MakeGlooCommunicator({.rank = rank, .size = size}, meeting, ops[rank]);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return worlds;
}

}  // namespace

ReplicaHarness::~ReplicaHarness() {
  // Links end together: a member that has left fails those that still wait for it.
  OnEveryRank([this](int rank) { ranks_[rank].links.world->Barrier(); });
}

void ReplicaHarness::OnEveryRank(const std::function<void(int rank)>& run) {
  std::vector<std::thread> threads;
  for (size_t rank = 1; rank < ranks_.size(); ++rank) {
    threads.emplace_back(run, static_cast<int>(rank));
  }
  run(0);
  for (std::thread& thread : threads) thread.join();
}

absl::Status ReplicaHarness::OpenRank(const Checkpoint& checkpoint, const Options& options,
                                      std::unique_ptr<Communicator> world, int rank) {
  Rank& own = ranks_[rank];
  TROUPE_ASSIGN_OR_RETURN(own.links, MakeRankLinks(std::move(world), map_));
  const RankShard shard = ShardOf(checkpoint.description(), map_, rank);
  const bool mtp = options.runner.mtp && shard.last_stage;
  auto model = LoadModel(checkpoint, own.ops.get(),
                         {.mode = options.runner.mode, .with_mtp = mtp, .shard = &shard});
  RunnerHarness::Options runner = options.runner;
  runner.links = &own.links;
  runner.mtp = mtp;
  if (!model.ok()) return model.status();
  TROUPE_ASSIGN_OR_RETURN(own.harness,
                          RunnerHarness::Create(std::move(own.ops), *std::move(model), runner));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ReplicaHarness>> ReplicaHarness::Create(const Checkpoint& checkpoint,
                                                                       const MakeRankOps& make_ops,
                                                                       const Options& options) {
  auto replica = std::make_unique<ReplicaHarness>();
  TROUPE_ASSIGN_OR_RETURN(replica->map_,
                          BuildShardMap(checkpoint.description(), options.layout, /*epoch=*/1));
  TROUPE_RETURN_IF_ERROR(ValidateShardMap(checkpoint.description(), replica->map_));
  std::vector<Ops*> ops;
  for (int rank = 0; rank < options.layout.world(); ++rank) {
    Rank& own = replica->ranks_.emplace_back();
    TROUPE_ASSIGN_OR_RETURN(own.ops, make_ops());
    own.links = LoneLinks();
    ops.push_back(own.ops.get());
  }
  Worlds worlds = options.transport == Transport::kGloo ? ConnectByGloo(ops) : ConnectInMemory(ops);
  for (const auto& world : worlds) TROUPE_RETURN_IF_ERROR(world.status());
  std::vector<absl::Status> statuses(ops.size());
  replica->OnEveryRank([&](int rank) {
    statuses[rank] = replica->OpenRank(checkpoint, options, *std::move(worlds[rank]), rank);
  });
  for (absl::Status& status : statuses) {
    if (status.ok()) continue;
    for (Rank& rank : replica->ranks_) rank.links = LoneLinks();
    return status;
  }
  return replica;
}

RunnerHarness::Logits ReplicaHarness::Step(const std::vector<RunnerHarness::Row>& rows) {
  const int dp = map_.layout.dp;
  std::vector<std::vector<RunnerHarness::Row>> by_home(dp);
  for (const RunnerHarness::Row& row : rows) {
    by_home[row.slot % dp].push_back(row);
    by_home[row.slot % dp].back().slot = row.slot / dp;
  }
  std::vector<RunnerHarness::Logits> logits(ranks_.size());
  OnEveryRank([&](int rank) {
    RunnerHarness& harness = *ranks_[rank].harness;
    const RankPlace place = map_.Place(rank);
    const StepOutput output = harness.Step(by_home[place.dp_index]);
    logits[rank] = RunnerHarness::Copy(output.logits);
    ranks_[rank].counts = {{output.heads_closed.begin(), output.heads_closed.end()},
                           {output.expert_tokens.begin(), output.expert_tokens.end()}};
    CHECK_OK(harness.runner().status());
  });
  return InOrder(rows, logits);
}

RunnerHarness::Logits ReplicaHarness::StepMtp(
    const std::vector<RunnerHarness::Row>& rows,
    const std::vector<std::vector<uint32_t>>& next_tokens) {
  const int dp = map_.layout.dp;
  std::vector<std::vector<uint32_t>> by_home(dp);
  for (size_t i = 0; i < rows.size(); ++i) {
    std::vector<uint32_t>& next = by_home[rows[i].slot % dp];
    next.insert(next.end(), next_tokens[i].begin(), next_tokens[i].end());
  }
  std::vector<RunnerHarness::Logits> logits(ranks_.size());
  OnEveryRank([&](int rank) {
    RunnerHarness& harness = *ranks_[rank].harness;
    const RankPlace place = map_.Place(rank);
    if (place.stage + 1 < map_.layout.pp) return;
    logits[rank] = RunnerHarness::Copy(
        harness.runner().ForwardMtp(harness.last_input(), by_home[place.dp_index]));
    CHECK_OK(harness.runner().status());
  });
  return InOrder(rows, logits);
}

RunnerHarness::Logits ReplicaHarness::InOrder(
    const std::vector<RunnerHarness::Row>& rows,
    const std::vector<RunnerHarness::Logits>& of_ranks) const {
  const int dp = map_.layout.dp;
  std::vector<RunnerHarness::Logits> of_home(dp);
  for (int home = 0; home < dp; ++home) {
    for (int tp = 0; tp < map_.layout.tp; ++tp) {
      const int rank = map_.RankOf({map_.layout.pp - 1, home, tp});
      if (tp == 0) of_home[home] = of_ranks[rank];
      CHECK(of_ranks[rank] == of_home[home])
          << "rank " << rank << " has other logits than tp rank 0";
    }
  }
  RunnerHarness::Logits in_order;
  std::vector<size_t> next(dp, 0);
  for (const RunnerHarness::Row& row : rows) {
    const int home = static_cast<int>(row.slot) % dp;
    for (int i = 0; i < row.logits; ++i) in_order.push_back(of_home[home][next[home]++]);
  }
  return in_order;
}

void ReplicaHarness::Finish(uint32_t slot) {
  const int dp = map_.layout.dp;
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    const int home = map_.Place(static_cast<int>(rank)).dp_index;
    if (home == static_cast<int>(slot) % dp) ranks_[rank].harness->Finish(slot / dp);
  }
}

}  // namespace troupe
