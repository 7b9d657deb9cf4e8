// Runs one replica: applies what pure Schedulers decide to the sessions of its ranks.
//
// First the ranks gather (RankGathering). From then on its life is four steps, again and again:
// drain a message, plan, dispatch, retire. Each data-parallel home has a Scheduler; their plans go
// out as one step of all ranks (JointSteps). It lives as long as all sessions do: when a link goes
// down, or a rank stays silent, it gives its sequences back to the fleet and ends.
//
// Ownership: owns the Schedulers and the WorkerLinks. Jobs are told by reference.
#ifndef TROUPE_COORDINATOR_SCHEDULER_ACTOR_H_
#define TROUPE_COORDINATOR_SCHEDULER_ACTOR_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/actor.h"
#include "coordinator/joint_steps.h"
#include "coordinator/messages.h"
#include "coordinator/rank_gathering.h"
#include "coordinator/replica_spec.h"
#include "coordinator/scheduler/scheduler.h"
#include "coordinator/worker_link.h"

namespace troupe {

class SchedulerActor final : public Actor<SchedulerMessage> {
 public:
  struct Config {
    Scheduler::Config scheduler;  // of each home
    RankGathering::Limits gathering;
    // A rank that owes a result for so long is stuck: the replica is not ready. Idle ranks are
    // asked every half of it.
    int64_t rank_timeout_us = 10'000'000;
    // And after so long lost.
    int64_t rank_lost_us = 60'000'000;
  };

  // Connects to the members when it starts.
  SchedulerActor(const Config& config, ReplicaSpec spec, WorkerLinkFactory connect,
                 ActorRef<FleetMessage> fleet);

 private:
  struct Home {
    std::unique_ptr<Scheduler> scheduler;
    uint64_t tokens = 0;  // of its sequences, as they were added
    uint32_t sequences = 0;
    // The session and the home whose state its ranks hold; 0: none's.
    uint64_t kept_epoch = 0;
    uint32_t kept_home = 0;

    bool Keeps(const SequenceRequest& sequence) const {
      return sequence.kept.has_value() && sequence.kept->epoch == kept_epoch &&
             sequence.kept->home == kept_home;
    }
  };
  struct Job {
    ActorRef<JobMessage> ref;
    size_t home = 0;
    uint64_t tokens = 0;
    bool decoding = false;  // has had a token from this replica
  };

  void OnStart() override;
  void Handle(SchedulerMessage message) override;

  void On(AddSequence message);
  void On(WaitingAdded message);
  void On(RemoveSequence message);
  void On(LinkUp message);
  void On(RankLoading message);
  void On(RankContribution message);
  void On(StepDone message);
  void On(LinkDown message);
  void On(CulpritOverdue message);
  void On(PlanAgain message);
  void On(HealthTick message);
  void On(HandOver message);
  void On(DescribeReplica message);

  // All ranks are there.
  absl::Status Begin();
  bool begun() const { return !homes_.empty(); }
  size_t HomeFor(const AddSequence& message) const;
  // Sends every step that may be sent now, and sets the timer for the next one.
  void PlanAndDispatch();
  void Dispatch(JointSteps::Plans plans);
  void Retire(const JointSteps::Results& results);
  // The session is over for `reason`, `rank`'s where it is not negative, or handed over where that
  // is OK: everything goes back to the fleet.
  void GiveUp(int rank, absl::Status reason);
  void TellJob(const SequenceEvent& event, const v1::StepResult& result);
  void Forget(absl::flat_hash_map<uint64_t, Job>::iterator job);
  void SetProblem(std::string problem);
  int64_t NowUs() const;

  const Config config_;
  const ReplicaSpec spec_;
  WorkerLinkFactory connect_;
  ActorRef<FleetMessage> fleet_;

  std::vector<std::unique_ptr<WorkerLink>> links_;  // by rank
  std::optional<RankGathering> gathering_;          // from OnStart on
  JointSteps steps_;
  std::vector<Home> homes_;  // empty until all ranks are there
  v1::WorkerInfo info_;
  absl::flat_hash_map<uint64_t, Job> jobs_;
  ActorTimerId wakeup_;
  std::optional<int64_t> wakeup_at_us_;
  int64_t last_step_us_ = 0;  // sent
  std::string problem_;       // as the fleet was told
  absl::Status complaint_;    // of the first rank that has lost another
  bool may_plan_ = false;     // WaitingAdded has come
  bool handing_over_ = false;
  uint64_t plan_ns_total_ = 0;
  uint64_t forward_us_total_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_SCHEDULER_ACTOR_H_
