// The protocol of the ReshardActor, one a replica of many ranks, and what it and Admin say to the
// fleet about layouts. Plain structs.
#ifndef TROUPE_COORDINATOR_RESHARD_MESSAGES_H_
#define TROUPE_COORDINATOR_RESHARD_MESSAGES_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/replica_spec.h"
#include "coordinator/reshard/decision_log.h"
#include "sharding/weight_ledger.h"
#include "troupe/v1/admin.pb.h"

namespace troupe {

// A worker that takes assignments has announced itself. From FleetActor, each time.
struct RankSeen {
  v1::RegisterWorkerRequest request;
};
// Somebody wants a plan of another layout, or that layout. From Admin's handler; `tell` is called
// with the plan, progress and outcome, and last with the outcome or an error.
struct ReshardAsked {
  v1::ReshardRequest request;
  absl::AnyInvocable<void(absl::StatusOr<v1::ReshardEvent>)> tell;
};
// Asks for what the replica's own status does not have: the ranks without a place, and why nothing
// serves. From FleetActor.
struct DescribeSpares {
  absl::AnyInvocable<void(std::vector<v1::WorkerStatus>)> reply;
};
// What the log says. From the DecisionLog, once.
struct LogRead {
  absl::StatusOr<DecisionRecord> record;
};
// A line is durable, or certainly not there. From the DecisionLog, once a line.
struct LogWritten {
  uint64_t epoch = 0;
  DecisionKind kind = DecisionKind::kBegin;
  absl::Status status;
};
// How far a rank is with preparing. From RankControl.
struct PrepareProgressed {
  uint64_t epoch = 0;  // of the map
  std::string worker;
  double done = 0;  // of all that it loads, 0 to 1
};
// It has prepared, and holds what has this digest, of the model of this identity; or has not. From
// RankControl, once a call.
struct PrepareEnded {
  uint64_t epoch = 0;
  std::string worker;
  absl::StatusOr<std::string> digest;
  std::string identity;
  std::vector<WeightPiece> weights;  // that it holds
  uint64_t peer_bytes = 0;           // that it read for it, as checkpoints store them
  uint64_t disk_bytes = 0;
};
// It has let go of what it was told to, or could not be reached. From RankControl, once a call.
struct RetireEnded {
  uint64_t epoch = 0;  // of the change that asked for it
  std::string worker;
  uint64_t keep_epoch = 0;
  absl::Status status;
};
// The replica computes with this map. From FleetActor, in answer to ServeReplica.
struct ReplicaServing {
  uint64_t map_epoch = 0;
};
// It does not any more, or never did. From FleetActor.
struct ReplicaLost {
  uint64_t map_epoch = 0;
  absl::Status status;
  std::string worker;  // whose session broke first; empty: not known
};
// Tokens that each (MoE layer, expert) of a replica received since they were last told, all its
// homes together; as StepResult.expert_tokens. From SchedulerActor to the fleet, which hands it to
// the ReshardActor of that replica.
struct ExpertsCounted {
  std::string replica;
  std::vector<uint32_t> tokens;
};
// Time to look at deadlines, and at ranks that are silent. From the actor to itself.
struct ReshardTick {};

using ReshardMessage = std::variant<RankSeen, ReshardAsked, DescribeSpares, LogRead, LogWritten,
                                    PrepareProgressed, PrepareEnded, RetireEnded, ReplicaServing,
                                    ReplicaLost, ExpertsCounted, ReshardTick>;

// ---- To the FleetActor
// The replica is to run on these ranks with this map from its next step on. From ReshardActor;
// answered by ReplicaServing or ReplicaLost, and later by ReplicaLost.
struct ServeReplica {
  ReplicaSpec spec;
};
// A layout is to be planned or changed. From Admin's handler; handed to the ReshardActor.
struct ReshardReplica {
  ReshardAsked asked;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_RESHARD_MESSAGES_H_
