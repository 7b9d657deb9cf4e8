// Knows the workers and which sequence runs where.
//
// Workers announce themselves and keep doing so; for each the fleet runs one SchedulerActor while
// its session lasts. A sequence whose worker is lost is routed again with the tokens it has;
// sequences that find no worker ready wait for one, for a bounded time.
//
// Ownership: owns the SchedulerActors. Keeps a copy of each sequence as it was routed, for the case
// that its worker is lost before the scheduler took it.
#ifndef TROUPE_COORDINATOR_FLEET_ACTOR_H_
#define TROUPE_COORDINATOR_FLEET_ACTOR_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/actor.h"
#include "coordinator/messages.h"
#include "coordinator/prefix_affinity.h"
#include "coordinator/router.h"
#include "coordinator/scheduler/scheduler.h"
#include "coordinator/worker_link.h"

namespace troupe {

class FleetActor final : public Actor<FleetMessage> {
 public:
  struct Config {
    Scheduler::Config scheduler;
    RouterConfig router;
    uint32_t heartbeat_ms = 1000;          // what workers are told
    int64_t worker_timeout_ms = 5000;      // silence after which a worker is forgotten
    int64_t no_worker_timeout_ms = 30000;  // how long a request waits while no worker is ready
    uint32_t max_pending = 4096;           // requests that wait so; more are refused
    uint32_t affinity_blocks = 65536;      // remembered for each worker
  };

  // Makes the actor that lays out the replica of all workers that take assignments; null: such
  // workers are refused.
  using ReshardFactory = std::function<ActorHandle<ReshardMessage>(ActorRef<FleetMessage>)>;

  // `on_ready` is told whether any worker is ready, at each change, from the actor's handlers.
  FleetActor(const Config& config, WorkerLinkFactory connect, std::function<void(bool)> on_ready,
             ReshardFactory make_reshard = nullptr);

 private:
  struct Worker {
    std::string address;
    uint64_t incarnation = 0;
    uint64_t epoch = 0;
    int64_t heard_us = 0;
    v1::WorkerStatus::State state = v1::WorkerStatus::STATE_LOST;
    std::optional<uint64_t> refused_incarnation;  // serves another model: not dialled again
    v1::WorkerInfo info;
    std::optional<PrefixAffinity> affinity;
    uint32_t sequences = 0;
    uint64_t prefill_tokens = 0;
    ActorHandle<SchedulerMessage> scheduler;
    // Of a replica of many ranks: what it runs as, and what it is to run as next.
    std::optional<ReplicaSpec> spec;
    std::optional<ReplicaSpec> next;
  };

  struct Routed {
    SequenceRequest sequence;
    std::vector<BlockKey> keys;
    ActorRef<JobMessage> job;
    std::string worker;  // empty: waits for one
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
  void On(ReplicaDown message);
  void On(ServeReplica message);  // fleet_replica.cc, as the next two
  void On(ReshardReplica message);
  void OnRank(RegisterWorker message);
  void On(DescribeFleet message);
  void On(FleetTick message);

  absl::Status CheckRegistration(const v1::RegisterWorkerRequest& request) const;
  void Dial(const std::string& name, Worker& worker);
  void Place(uint64_t id, Routed& routed);
  void PlacePending();
  // Takes the sequence off its worker's books.
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
  std::map<std::string, Worker> workers_;
  absl::flat_hash_map<uint64_t, Routed> routed_;
  std::vector<uint64_t> pending_;  // without a worker, in order of arrival
  struct Asker {
    ActorRef<JobMessage> job;
    int64_t since_us;
  };
  std::vector<Asker> askers_;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_FLEET_ACTOR_H_
