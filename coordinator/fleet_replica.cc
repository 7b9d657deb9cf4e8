// How the fleet makes replicas of workers, and its part in changes of layout. See fleet_actor.h.

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_util.h"
#include "coordinator/fleet_actor.h"

namespace troupe {

void FleetActor::FormReplicas() {
  while (NowUs() >= form_after_us_) {
    std::vector<ReplicaMember> members = muster_.NextReplica();
    if (members.empty()) return;
    absl::StatusOr<ReplicaSpec> spec = MakeSpec(std::move(members));
    if (!spec.ok()) {
      LOG(ERROR) << "no replica can be made: " << spec.status();
      last_problem_ = std::string(spec.status().message());
      PauseForming();
      return;
    }
    Dial(*std::move(spec));
  }
}

absl::StatusOr<ReplicaSpec> FleetActor::MakeSpec(std::vector<ReplicaMember> members) {
  ReplicaSpec spec{.members = std::move(members)};
  std::vector<v1::RegisterWorkerRequest> requests;
  for (const ReplicaMember& member : spec.members) {
    requests.push_back(muster_.workers().at(member.worker).request);
  }
  if (config_.make_map != nullptr && requests.front().takes_assignment()) {
    TROUPE_ASSIGN_OR_RETURN(spec.map, config_.make_map(requests));
  } else if (requests.front().takes_assignment()) {
    spec.map = v1::ShardMap();
    spec.map->mutable_layout()->set_tp(1);
    spec.map->mutable_layout()->set_dp(requests.size());
    spec.map->mutable_layout()->set_pp(1);
  }
  spec.epoch = ++next_epoch_;
  if (spec.map.has_value()) spec.map->set_epoch(spec.epoch);
  spec.name = spec.members.front().worker;
  for (int i = 0; config_.ranks > 1; ++i) {
    spec.name = absl::StrCat("replica", i);
    if (!replicas_.contains(spec.name)) break;
  }
  return spec;
}

void FleetActor::OnRank(RegisterWorker message) {
  v1::RegisterWorkerReply reply;
  reply.set_heartbeat_ms(config_.heartbeat_ms);
  const absl::Status told = reshard_.ref().Tell(RankSeen{message.request});
  message.reply(told.ok() ? absl::StatusOr<v1::RegisterWorkerReply>(std::move(reply)) : told);
}

void FleetActor::On(ServeReplica message) {
  const auto found = replicas_.find(message.spec.name);
  if (found != replicas_.end()) {
    // The session goes on to the end of what it has planned; its ReplicaDown starts the next one.
    found->second.next = std::move(message.spec);
    (void)found->second.scheduler.ref().TellReply(HandOver{});
    return;
  }
  message.spec.epoch = ++next_epoch_;
  const std::string name = message.spec.name;
  Dial(std::move(message.spec));
  replicas_.at(name).has_layouts = true;
}

void FleetActor::DescribeSpareRanks(const std::shared_ptr<StatusCollector>& collector) {
  (void)reshard_.ref().TellReply(DescribeSpares{[collector](std::vector<v1::WorkerStatus> ranks) {
    for (v1::WorkerStatus& rank : ranks) collector->Add(std::move(rank), {});
  }});
}

void FleetActor::OnLayoutDown(Replica down, const std::string& culprit,
                              const absl::Status& status) {
  if (!down.next.has_value()) {
    (void)reshard_.ref().TellReply(ReplicaLost{down.spec.map->epoch(), status, culprit});
    return;
  }
  const std::string name = down.next->name;
  On(ServeReplica{*std::move(down.next)});
  Replica& next = replicas_.at(name);
  // Requests that come meanwhile wait, and nobody is told that the service is down.
  next.takes_over = down.state == v1::WorkerStatus::STATE_READY;
  next.info = std::move(down.info);
}

void FleetActor::On(ReshardReplica message) {
  if (!reshard_) {
    message.asked.tell(absl::FailedPreconditionError(
        "no replica here changes its layout: start the coordinator with a layout"));
  } else if (!reshard_.ref().alive()) {
    message.asked.tell(absl::UnavailableError("the replica's decision log cannot be read"));
  } else {
    (void)reshard_.ref().TellReply(std::move(message.asked));
  }
}

}  // namespace troupe
