// Lays a replica of many ranks out, and changes the layout while it serves.
//
// It knows the ranks that announce themselves and the map that was decided last, which its log
// holds across restarts. Whatever the reason, a change is the same transaction (transaction.h):
//
//     the first layout        as many ranks as it needs are there
//     somebody asks           Admin.Reshard
//     a rank is lost          what is left forms the layout that ChooseSurvivors finds
//     some are too busy       experts move as their loads say, where RebalanceRules want it
//
// After a restart the last decided map is the truth: ranks that hold it serve again at once, a
// change that had not been decided is undone where it had begun.
//
// Ownership: owns the control of ranks and the log; the model is shared. Invariants: one change at
// a time; the fleet is told to serve a map only once it is decided.
#ifndef TROUPE_COORDINATOR_RESHARD_RESHARD_ACTOR_H_
#define TROUPE_COORDINATOR_RESHARD_RESHARD_ACTOR_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/actor.h"
#include "coordinator/messages.h"
#include "coordinator/reshard/decision_log.h"
#include "coordinator/reshard/messages.h"
#include "coordinator/reshard/rank_book.h"
#include "coordinator/reshard/rank_control.h"
#include "coordinator/reshard/rebalance_rules.h"
#include "coordinator/reshard/transaction.h"
#include "model/description.h"
#include "sharding/expert_placement.h"
#include "sharding/reshard_plan.h"
#include "sharding/shard_map.h"
#include "sharding/weight_ledger.h"

namespace troupe {

class ReshardActor final : public Actor<ReshardMessage> {
 public:
  struct Config {
    std::string replica = "replica0";
    std::shared_ptr<const ModelDescription> model;
    Layout layout;  // the first; not looked at once a map is decided
    Sizing sizing;
    ReshardRates rates;
    RebalanceRules rebalance;
    int64_t prepare_timeout_ms = 600'000;  // unless a request says otherwise
    int64_t retire_timeout_ms = 10'000;
    int64_t rank_timeout_ms = 5'000;  // silence after which a rank counts as lost
    // After a start, how long the ranks of the decided map may take to announce themselves before
    // those that are there go on without the others.
    int64_t gather_timeout_ms = 10'000;
    int64_t retry_ms = 1'000;  // after a first layout, or one of survivors, that failed
    int64_t tick_ms = 100;
  };
  // Told of every step of a change, for tests: what happened, and to whom.
  using Observer = std::function<void(const std::string& what)>;

  ReshardActor(Config config, std::unique_ptr<RankControl> control,
               std::unique_ptr<DecisionLog> log, ActorRef<FleetMessage> fleet, Observer observer);

 private:
  // A map and its machines, by rank.
  struct Placed {
    ShardMap map;
    std::vector<std::string> members;
  };
  // Which model ranks have, and who of them was the first to say so.
  struct ReadModel {
    std::string identity;  // empty: not known
    std::string worker;    // empty: none of those that are here
  };
  using Tell = absl::AnyInvocable<void(absl::StatusOr<v1::ReshardEvent>)>;
  struct Change {
    Placed to;
    ReshardPlan plan;
    int layers_left = 0;               // of one by load: that did not fit
    std::vector<std::string> workers;  // by member of the transaction
    ReadModel model;                   // that the new ranks have prepared
    WeightLedger weights;              // that they have read for it
    std::unique_ptr<ReshardTransaction> transaction;
    std::map<std::string, std::unique_ptr<RankControl::Call>> calls;
    std::map<std::string, double> done;  // by worker, of what it loads
    uint64_t peer_bytes = 0;             // that ranks have read
    uint64_t disk_bytes = 0;
    ReshardPhase told_phase = ReshardPhase::kBeginning;
    uint32_t told_prepared = 0;
    int64_t told_us = 0;
    std::optional<Tell> tell;  // who asked
    int64_t started_us = 0;
    int64_t decided_us = 0;
    int64_t ready_us = 0;
  };
  enum class State {
    kDown,      // nobody serves
    kStarting,  // the fleet was told to
    kUp,
  };

  void OnStart() override;
  void Handle(ReshardMessage message) override;

  void On(const RankSeen& message);
  void On(ReshardAsked message);
  void On(DescribeSpares message);
  void On(LogRead message);
  void On(const LogWritten& message);
  void On(const PrepareProgressed& message);
  void On(const PrepareEnded& message);
  void On(const RetireEnded& message);
  void On(const ReplicaServing& message);
  void On(const ReplicaLost& message);
  void On(const ExpertsCounted& message);
  void On(ReshardTick message);

  // Looks at what there is to do, when no change is under way.
  void Drive();
  void StartAsked();
  void MoveExperts();
  void FormFirst();
  void Reform();
  void Serve();
  // reshard_change.cc: one change, from its plan to its end. First the plan that a request asks
  // for.
  absl::StatusOr<Change> PlanRequest(const v1::ReshardRequest& request) const;
  absl::StatusOr<Change> MakeChange(Placed to) const;
  RankMatch Match(const std::vector<std::string>& members) const;
  v1::ExpertBalance BalanceWith(const ShardMap& map) const;
  void Start(Change change, int64_t deadline_us);
  void Apply(ReshardActions actions);
  void Ask(const AskPrepare& action);
  // What a rank says of its model, and of its weights; the last one's completes them.
  absl::Status CheckModel(const PrepareEnded& message);
  absl::Status CheckWeights(const PrepareEnded& message);
  void Ask(const AskRetire& action);
  void Append(DecisionKind kind);
  void Switch();
  void End(const EndReshard& action);
  void TellProgress();
  v1::ReshardPlan Describe(const Change& change) const;
  std::optional<size_t> MemberOf(const std::string& worker) const;
  bool Live(const std::string& worker) const { return ranks_.Live(worker, NowUs()); }
  // It is there and holds the decided map.
  bool Serves(const std::string& worker) const;
  std::vector<std::string> Spares(const std::vector<std::string>& members) const {
    return ranks_.Spares(members, NowUs());
  }
  v1::ShardMap Proto(const Placed& placed) const;
  void Observe(const std::string& what) const;
  int64_t NowUs() const;

  const Config config_;
  const std::unique_ptr<RankControl> control_;
  const std::unique_ptr<DecisionLog> log_;
  const ActorRef<FleetMessage> fleet_;
  const Observer observer_;

  RankBook ranks_;
  bool log_read_ = false;
  uint64_t last_epoch_ = 0;
  std::optional<Placed> decided_;
  ReadModel model_;  // of the decided map
  // Of the decided map. After a restart only their sum is known, from the log; 0: nor that.
  std::optional<WeightLedger> weights_;
  uint64_t weights_digest_ = 0;
  ExpertLoads loads_;  // of the replica, whatever its layout
  State state_ = State::kDown;
  std::optional<Change> change_;
  std::deque<ReshardAsked> asked_;  // to be applied, while a change is under way
  int64_t reform_at_us_ = 0;
  int64_t form_first_at_us_ = 0;
  int64_t rebalance_at_us_ = 0;
  std::string problem_;  // why nothing serves, where that is known
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_RESHARD_RESHARD_ACTOR_H_
