// Knows the replicas and which sequence runs where.
//
// Workers announce themselves and keep doing so (Muster). Each that has loaded a whole model is a
// replica; others become ranks of one as soon as there are enough. For each replica the fleet runs
// one SchedulerActor while its session lasts. A sequence whose replica is lost is routed again with
// the tokens it has; sequences that find no replica ready wait for one, for a bounded time.
//
// Ownership: owns the SchedulerActors. Keeps a copy of each sequence as it was routed, for the case
// that its replica is lost before the scheduler took it.
#ifndef TROUPE_COORDINATOR_FLEET_ACTOR_H_
#define TROUPE_COORDINATOR_FLEET_ACTOR_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/actor.h"
#include "coordinator/messages.h"
#include "coordinator/muster.h"
#include "coordinator/prefix_affinity.h"
#include "coordinator/rank_gathering.h"
#include "coordinator/replica_spec.h"
#include "coordinator/router.h"
#include "coordinator/scheduler/scheduler.h"
#include "coordinator/status_collector.h"
#include "coordinator/worker_link.h"

namespace troupe {

class FleetActor final : public Actor<FleetMessage> {
 public:
  // The map of a replica with these members; what it costs is bounded by a handler's time.
  using MapMaker = std::function<absl::StatusOr<v1::ShardMap>(
      const std::vector<v1::RegisterWorkerRequest>& members)>;

  struct Config {
    Scheduler::Config scheduler;
    RouterConfig router;
    uint32_t heartbeat_ms = 1000;          // what workers are told
    int64_t worker_timeout_ms = 5000;      // silence after which a worker is forgotten
    int64_t no_worker_timeout_ms = 30000;  // how long a request waits while no worker is ready
    uint32_t max_pending = 4096;           // requests that wait so; more are refused
    uint32_t affinity_blocks = 65536;      // remembered for each replica

    // Of each replica. More than one: `make_map` says who holds what, null: all hold everything.
    uint32_t ranks = 1;
    MapMaker make_map;
    RankGathering::Limits gathering;
    int64_t rank_timeout_ms = 10000;  // a rank that owes a result for so long is stuck
    int64_t rank_lost_ms = 60000;     // and after so long lost
    // Between two attempts to form a replica that never came up; doubles up to 30 times that.
    int64_t form_retry_ms = 1000;
  };

  // Makes the actor that lays out the one replica of all workers that take assignments.
  using ReshardFactory = std::function<ActorHandle<ReshardMessage>(ActorRef<FleetMessage>)>;

  // `on_ready` is told whether any worker is ready, at each change, from the actor's handlers.
  // Without `make_reshard`, replicas have `config.ranks` ranks and a layout for life.
  FleetActor(const Config& config, WorkerLinkFactory connect, std::function<void(bool)> on_ready,
             ReshardFactory make_reshard = nullptr);

 private:
  struct Replica {
    ReplicaSpec spec;
    v1::WorkerStatus::State state = v1::WorkerStatus::STATE_CONNECTING;
    v1::WorkerInfo info;
    std::optional<PrefixAffinity> affinity;
    uint32_t sequences = 0;
    uint64_t prefill_tokens = 0;
    ActorHandle<SchedulerMessage> scheduler;
    // Of the replica that the ReshardActor lays out.
    bool has_layouts = false;
    bool takes_over = false;          // comes up in the place of a session that was ready
    std::optional<ReplicaSpec> next;  // once the session has handed over
  };

  struct Routed {
    SequenceRequest sequence;
    std::vector<BlockKey> keys;
    ActorRef<JobMessage> job;
    std::string replica;  // empty: waits for one
    int64_t waiting_since_us = 0;
    bool prefill_counted = false;
  };

  void OnStart() override;
  void Handle(FleetMessage message) override;

  void On(RegisterWorker message);
  void On(AskModel message);
  void On(RouteSequence message);
  void On(DropSequence message);
  void On(PrefillEnded message);
  void On(SequenceEnded message);
  void On(ReplicaUp message);
  void On(const ReplicaHealth& message);
  void On(ReplicaDown message);
  void On(ServeReplica message);  // fleet_replica.cc, as the next four
  void On(ReshardReplica message);
  void On(ExpertsCounted message);
  void OnRank(RegisterWorker message);
  void DescribeSpareRanks(const std::shared_ptr<StatusCollector>& collector);
  void OnLayoutDown(Replica down, const std::string& culprit, const absl::Status& status);
  void On(DescribeFleet message);
  void On(FleetTick message);

  // Makes replicas of workers that wait, as many as there are.
  void FormReplicas();
  absl::StatusOr<ReplicaSpec> MakeSpec(std::vector<ReplicaMember> members);
  void Dial(ReplicaSpec spec);
  // After a failure, before the next attempt.
  void PauseForming();
  // The live replica; null: it is gone, or another has its name now.
  Replica* Find(const std::string& name, uint64_t epoch);
  // Its sequences go elsewhere; `given` are those that it gave back.
  void MoveSequences(const std::string& replica, std::vector<SequenceRequest> given);
  void WarnOfMissingRanks();
  void Place(uint64_t id, Routed& routed);
  void PlacePending();
  // Takes the sequence off its replica's books.
  void Unplace(Routed& routed);
  const v1::WorkerInfo* Model() const;
  void TellReadiness();
  int64_t NowUs() const;

  const Config config_;
  WorkerLinkFactory connect_;
  std::function<void(bool)> on_ready_;
  const ReshardFactory make_reshard_;
  ActorHandle<ReshardMessage> reshard_;
  bool ready_ = false;
  uint64_t next_epoch_ = 0;
  Muster muster_;
  std::map<std::string, Replica> replicas_;
  std::string last_problem_;  // why the last replica of several ranks ended, or was not made
  int64_t form_after_us_ = 0;
  int64_t form_pause_us_ = 0;  // after the next failure
  std::optional<int64_t> wanting_since_us_;
  bool wanting_told_ = false;
  absl::flat_hash_map<uint64_t, Routed> routed_;
  std::vector<uint64_t> pending_;  // without a replica, in order of arrival
  struct Asker {
    ActorRef<JobMessage> job;
    int64_t since_us;
  };
  std::vector<Asker> askers_;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_FLEET_ACTOR_H_
