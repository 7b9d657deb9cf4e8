// The fleet's part in replicas of many ranks. See fleet_actor.h.

#include <utility>

#include "coordinator/fleet_actor.h"

namespace troupe {

void FleetActor::OnRank(RegisterWorker message) {
  if (!reshard_) {
    message.reply(absl::FailedPreconditionError(
        "the worker takes an assignment, and this coordinator has no layout to assign: start the "
        "coordinator with --layout, or the worker without --ranks"));
    return;
  }
  v1::RegisterWorkerReply reply;
  reply.set_heartbeat_ms(config_.heartbeat_ms);
  const absl::Status told = reshard_.ref().Tell(RankSeen{message.request});
  message.reply(told.ok() ? absl::StatusOr<v1::RegisterWorkerReply>(std::move(reply)) : told);
}

void FleetActor::On(ServeReplica message) {
  Worker& worker = workers_[message.spec.name];
  if (worker.state == v1::WorkerStatus::STATE_LOST) {
    worker.spec = std::move(message.spec);
    Dial(worker.spec->name, worker);
    return;
  }
  // The session goes on until a step is done; its ReplicaDown starts the next one.
  worker.next = std::move(message.spec);
  (void)worker.scheduler.ref().TellReply(HandOver{});
}

void FleetActor::On(ReshardReplica message) {
  if (!reshard_) {
    message.asked.tell(absl::FailedPreconditionError(
        "no replica here has a layout: each worker is a replica by itself"));
    return;
  }
  if (reshard_.ref().alive()) {
    (void)reshard_.ref().TellReply(std::move(message.asked));
  } else {
    message.asked.tell(absl::UnavailableError("the replica's decision log cannot be read"));
  }
}

}  // namespace troupe
