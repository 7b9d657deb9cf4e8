// Runs one replica: applies what the pure Scheduler decides to one worker session.
//
// Its whole life is four steps, again and again: drain a message, plan, dispatch, retire. It lives
// as long as the session: when the link goes down it gives its sequences back to the fleet and
// ends.
//
// Ownership: owns the Scheduler and the WorkerLink. Jobs are told by reference.
#ifndef TROUPE_COORDINATOR_SCHEDULER_ACTOR_H_
#define TROUPE_COORDINATOR_SCHEDULER_ACTOR_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "base/actor.h"
#include "coordinator/messages.h"
#include "coordinator/scheduler/scheduler.h"
#include "coordinator/worker_link.h"

namespace troupe {

class SchedulerActor final : public Actor<SchedulerMessage> {
 public:
  // Connects to the worker `worker` at `address` when it starts; to all members of `map` where that
  // is given, and then has no address.
  SchedulerActor(const Scheduler::Config& config, std::string worker, std::string address,
                 std::optional<v1::ShardMap> map, uint64_t epoch, WorkerLinkFactory connect,
                 ActorRef<FleetMessage> fleet);

 private:
  void OnStart() override;
  void Handle(SchedulerMessage message) override;

  void On(AddSequence message);
  void On(RemoveSequence message);
  void On(LinkUp message);
  void On(const StepDone& message);
  void On(LinkDown message);
  void On(PlanAgain message);
  void On(HandOver message);
  void On(DescribeReplica message);

  // Sends every plan that may be sent now, and sets the timer for the next one.
  void PlanAndDispatch();
  // The session is over for `reason`: everything goes back to the fleet.
  void GiveUp(absl::Status reason, std::string lost = "");
  void TellJob(const SequenceEvent& event, const v1::StepResult& result);
  int64_t NowUs() const;

  const Scheduler::Config config_;
  const std::string worker_;
  const std::string address_;
  const std::optional<v1::ShardMap> map_;
  const uint64_t epoch_;
  WorkerLinkFactory connect_;
  ActorRef<FleetMessage> fleet_;

  std::unique_ptr<WorkerLink> link_;
  std::unique_ptr<Scheduler> scheduler_;  // null until the worker has answered
  bool handing_over_ = false;
  v1::WorkerInfo info_;
  struct Job {
    ActorRef<JobMessage> ref;
    bool decoding = false;  // has had a token from this replica
  };
  absl::flat_hash_map<uint64_t, Job> jobs_;
  ActorTimerId wakeup_;
  std::optional<int64_t> wakeup_at_us_;
  uint64_t plan_ns_total_ = 0;
  uint64_t forward_us_total_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_SCHEDULER_ACTOR_H_
