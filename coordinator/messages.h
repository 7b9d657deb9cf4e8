// The protocol of the coordinator's actors. One JobActor a request, one SchedulerActor a replica's
// session, one FleetActor. Plain structs; times are microseconds of the executor's monotonic clock.
#ifndef TROUPE_COORDINATOR_MESSAGES_H_
#define TROUPE_COORDINATOR_MESSAGES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/actor.h"
#include "coordinator/link_messages.h"
#include "coordinator/reshard/messages.h"
#include "coordinator/scheduler/block_key.h"
#include "coordinator/scheduler/sequence.h"
#include "troupe/v1/admin.pb.h"
#include "troupe/v1/worker.pb.h"

namespace troupe {

// ---- To a JobActor
// Prompt tokens are ready, or why they are not. From the task that tokenised, once.
struct PromptReady {
  absl::StatusOr<std::vector<uint32_t>> tokens;
};
// What the fleet's workers serve, all the same model. From FleetActor, in answer to AskModel.
struct ModelKnown {
  absl::StatusOr<v1::WorkerInfo> model;
};
// Which leading blocks the cache service holds. From the cache client's callback, once.
struct CacheKnown {
  std::vector<uint32_t> cached_groups;  // as SequenceRequest::cached_groups
};
// The sequence now runs on `worker`. From SchedulerActor, once for each replica that takes it.
struct SequenceStarted {
  std::string worker;
};
// A row of the sequence was retired. From SchedulerActor.
struct SequenceProgress {
  SequenceEvent event;
  std::optional<v1::TokenLogprobs> logprobs;
};
// The sequence will not go on. From SchedulerActor or FleetActor; the last message about it.
struct SequenceFailed {
  absl::Status status;
};
// The client is gone or its deadline has passed. From the service's reactor.
struct ClientGone {
  absl::Status status;
};

using JobMessage = std::variant<PromptReady, ModelKnown, CacheKnown, SequenceStarted,
                                SequenceProgress, SequenceFailed, ClientGone>;

// ---- To a SchedulerActor: what its WorkerLinks tell (link_messages.h), and
// From FleetActor. Answered to `job` by SequenceStarted, SequenceProgress... or SequenceFailed.
struct AddSequence {
  SequenceRequest sequence;
  std::vector<BlockKey> keys;  // of the prompt's leading blocks
  ActorRef<JobMessage> job;
};
// All that waited for this replica have been added: plan. From FleetActor, once, after ReplicaUp.
struct WaitingAdded {};
// Forgets a sequence; unknown ids are fine. From FleetActor.
struct RemoveSequence {
  uint64_t sequence = 0;
};
// From the actor to itself: a rank has lost another, and nobody says who that is; NextWakeup has
// come; it is time to look for silent ranks.
struct CulpritOverdue {};
struct PlanAgain {};
struct HealthTick {};
// Ends the session by ReplicaDown once what is planned is done. From FleetActor.
struct HandOver {};
// Asks for the replica's figures. From FleetActor.
struct DescribeReplica {
  absl::AnyInvocable<void(v1::WorkerStatus, std::vector<v1::TenantStatus>)> reply;
};

using SchedulerMessage =
    std::variant<AddSequence, WaitingAdded, RemoveSequence, LinkUp, RankLoading, RankContribution,
                 StepDone, LinkDown, CulpritOverdue, PlanAgain, HealthTick, HandOver,
                 DescribeReplica>;

// ---- To the FleetActor: these, and ServeReplica, ReshardReplica, ExpertsCounted (reshard/)
// A worker announced itself. From Admin's handler; `reply` is called once.
struct RegisterWorker {
  v1::RegisterWorkerRequest request;
  absl::AnyInvocable<void(absl::StatusOr<v1::RegisterWorkerReply>)> reply;
};
// From JobActor; answered by ModelKnown, once a worker is ready.
struct AskModel {
  ActorRef<JobMessage> job;
};
// Runs a sequence on some replica, on another if it dies. From JobActor; answered as AddSequence.
struct RouteSequence {
  SequenceRequest sequence;
  std::vector<BlockKey> keys;  // of the prompt's leading blocks
  ActorRef<JobMessage> job;
};
// The job no longer wants its sequence. From JobActor; no reply.
struct DropSequence {
  uint64_t sequence = 0;
};
// The sequence's prompt is computed, or it has ended by itself. From SchedulerActor.
struct PrefillEnded {
  uint64_t sequence = 0;
};
struct SequenceEnded {
  uint64_t sequence = 0;
};
// The replica's ranks are all there. From SchedulerActor.
struct ReplicaUp {
  std::string replica;
  uint64_t epoch = 0;
  v1::WorkerInfo info;  // of each data-parallel home
};
// A rank has been silent for long, by name; empty: all answer again. From SchedulerActor.
struct ReplicaHealth {
  std::string replica;
  uint64_t epoch = 0;
  std::string problem;
};
// The replica's session is over; `sequences` are to go on elsewhere. From SchedulerActor, last.
struct ReplicaDown {
  std::string replica;
  uint64_t epoch = 0;
  int rank = -1;        // whose fault it was, where that is known
  absl::Status status;  // OK: handed over
  std::vector<SequenceRequest> sequences;
};
// Asks for the whole cluster's status. From Admin's handler.
struct DescribeFleet {
  absl::AnyInvocable<void(v1::ClusterStatus)> reply;
};
// Time to look for overdue heartbeats and jobs that waited too long. From the actor to itself.
struct FleetTick {};

using FleetMessage =
    std::variant<RegisterWorker, AskModel, RouteSequence, DropSequence, PrefillEnded, SequenceEnded,
                 ReplicaUp, ReplicaHealth, ReplicaDown, ServeReplica, ReshardReplica,
                 ExpertsCounted, DescribeFleet, FleetTick>;

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_MESSAGES_H_
