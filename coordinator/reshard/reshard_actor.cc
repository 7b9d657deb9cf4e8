#include "coordinator/reshard/reshard_actor.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "base/check.h"
#include "base/log.h"
#include "base/status_util.h"
#include "sharding/layout_rules.h"
#include "sharding/shard_map_proto.h"
#include "sharding/survivor_layout.h"

namespace troupe {

ReshardActor::ReshardActor(Config config, std::unique_ptr<RankControl> control,
                           std::unique_ptr<DecisionLog> log, ActorRef<FleetMessage> fleet,
                           Observer observer)
    : config_(std::move(config)),
      control_(std::move(control)),
      log_(std::move(log)),
      fleet_(std::move(fleet)),
      observer_(std::move(observer)),
      ranks_(config_.rank_timeout_ms * 1000),
      loads_(LoadsOf(*config_.model)) {}

void ReshardActor::OnStart() {
  log_->Read([actor = self()](absl::StatusOr<DecisionRecord> record) {
    (void)actor.TellReply(LogRead{std::move(record)});
  });
  TellAfter(absl::Milliseconds(config_.tick_ms), ReshardTick{});
}

void ReshardActor::Handle(ReshardMessage message) {
  std::visit([this](auto&& m) { On(std::forward<decltype(m)>(m)); }, std::move(message));
  Drive();
}

void ReshardActor::On(LogRead message) {
  if (!message.record.ok()) {
    LOG(ERROR) << config_.replica << ": decision log: " << message.record.status();
    Fail(message.record.status());
    return;
  }
  log_read_ = true;
  last_epoch_ = message.record->last_epoch;
  reform_at_us_ = NowUs() + config_.gather_timeout_ms * 1000;
  if (!message.record->abandoned.empty()) {
    LOG(WARNING) << config_.replica << ": a change that had begun was not decided and is undone: "
                 << message.record->abandoned;
  }
  if (!message.record->decided.has_value()) return;
  const v1::ShardMap& proto = *message.record->decided;
  absl::StatusOr<ShardMap> map = FromProto(proto);
  const absl::Status valid = map.ok() ? ValidateShardMap(*config_.model, *map) : map.status();
  if (!valid.ok() || proto.members_size() != map->layout.world()) {
    LOG(ERROR) << config_.replica << ": the decided map is not one of this model: " << valid
               << "; the replica is laid out anew";
    return;
  }
  decided_ = Placed{*std::move(map), {}};
  for (const v1::RankMember& member : proto.members()) {
    decided_->members.push_back(member.worker());
  }
  weights_digest_ = proto.weights_digest();
  model_.identity = proto.identity();
}

void ReshardActor::On(const RankSeen& message) {
  const v1::RegisterWorkerRequest& request = message.request;
  const bool restarted = ranks_.OnSeen(request, NowUs());
  if (change_.has_value()) {
    const std::optional<size_t> member = MemberOf(request.worker());
    // It has lost what it had prepared, and what it served with.
    if (restarted && member.has_value()) {
      Apply(change_->transaction->Lost(*member, absl::AbortedError("was restarted")));
    }
    return;
  }
  if (!log_read_) return;
  const bool member =
      decided_.has_value() && std::find(decided_->members.begin(), decided_->members.end(),
                                        request.worker()) != decided_->members.end();
  const uint64_t keep = member ? decided_->map.epoch : 0;
  if (ranks_.HoldsOthers(request.worker(), keep)) {
    control_->Retire(ranks_.Member(request.worker()), keep, last_epoch_, self());
  }
}

void ReshardActor::On(ReshardTick) {
  const int64_t now_us = NowUs();
  TellAfter(absl::Milliseconds(config_.tick_ms), ReshardTick{});
  if (!change_.has_value()) return;
  const std::vector<std::string> workers = change_->workers;
  for (size_t m = 0; m < workers.size() && change_.has_value(); ++m) {
    if (Live(workers[m])) continue;
    Apply(change_->transaction->Lost(m, absl::UnavailableError("has not been heard of")));
  }
  if (change_.has_value()) Apply(change_->transaction->Tick(now_us));
}

void ReshardActor::On(ReshardAsked message) {
  if (!message.request.apply()) {
    absl::StatusOr<Change> change = PlanRequest(message.request);
    if (!change.ok()) {
      message.tell(change.status());
      return;
    }
    v1::ReshardEvent event;
    *event.mutable_plan() = Describe(*change);
    message.tell(std::move(event));
    return;
  }
  if (!decided_.has_value()) {
    message.tell(absl::UnavailableError(absl::StrCat(config_.replica, " has no layout yet")));
    return;
  }
  if (asked_.size() >= 16) {
    message.tell(absl::ResourceExhaustedError("16 changes of layout wait already; retry later"));
    return;
  }
  asked_.push_back(std::move(message));
}

void ReshardActor::On(DescribeSpares message) {
  std::vector<v1::WorkerStatus> all;
  if (state_ == State::kDown) {
    v1::WorkerStatus& replica = all.emplace_back();
    replica.set_worker(config_.replica);
    replica.set_state(v1::WorkerStatus::STATE_WAITING);
    replica.set_problem(problem_);
    if (problem_.empty() && !decided_.has_value()) {
      replica.set_problem(absl::StrCat(Spares({}).size(), " of ", config_.layout.world(),
                                       " ranks are here, for ", NameOf(config_.layout)));
    }
  }
  const bool placed = decided_.has_value();
  for (const std::string& name : Spares(placed ? decided_->members : std::vector<std::string>())) {
    v1::WorkerStatus& spare = all.emplace_back();
    spare.set_worker(name);
    spare.set_address(ranks_.Member(name).address());
    spare.set_state(placed ? v1::WorkerStatus::STATE_SPARE : v1::WorkerStatus::STATE_WAITING);
  }
  message.reply(std::move(all));
}

void ReshardActor::On(const LogWritten& message) {
  if (!change_.has_value() || change_->to.map.epoch != message.epoch) return;
  if (message.kind == DecisionKind::kBegin) {
    Apply(change_->transaction->Begun(message.status));
  } else {
    Observe("decision acknowledged");
    Apply(change_->transaction->Decided(message.status));
  }
}

void ReshardActor::On(const PrepareProgressed& message) {
  if (!change_.has_value() || change_->to.map.epoch != message.epoch) return;
  change_->done[message.worker] = message.done;
  TellProgress();
}

void ReshardActor::On(const PrepareEnded& message) {
  if (!change_.has_value() || change_->to.map.epoch != message.epoch) return;
  const std::optional<size_t> member = MemberOf(message.worker);
  if (!member.has_value()) return;
  change_->calls.erase(message.worker);
  change_->peer_bytes += message.peer_bytes;
  change_->disk_bytes += message.disk_bytes;
  Observe(absl::StrCat("prepared ", message.worker));
  if (message.digest.ok()) {
    ranks_.OnPrepared(message.worker, message.epoch);
  } else if (absl::IsUnavailable(message.digest.status())) {
    ranks_.OnLost(message.worker);
    reform_at_us_ = 0;  // with one rank less, it is another attempt
  }
  absl::Status checked = CheckModel(message);
  if (checked.ok()) checked = CheckWeights(message);
  if (checked.ok()) {
    Apply(change_->transaction->Prepared(*member, message.digest));
  } else {
    Apply(change_->transaction->Cancel(checked));
  }
}

void ReshardActor::On(const RetireEnded& message) {
  Observe(absl::StrCat("retired ", message.worker));
  if (message.status.ok()) ranks_.OnRetired(message.worker, message.keep_epoch);
  if (!change_.has_value() || change_->to.map.epoch != message.epoch) return;
  const std::optional<size_t> member = MemberOf(message.worker);
  // One that cannot be reached is told again when it announces what it holds.
  if (member.has_value()) Apply(change_->transaction->Retired(*member));
}

void ReshardActor::On(const ReplicaServing& message) {
  if (!decided_.has_value() || decided_->map.epoch != message.map_epoch) return;
  Observe("serving");
  state_ = State::kUp;
  problem_.clear();
  if (!change_.has_value()) return;
  change_->ready_us = NowUs();
  Apply(change_->transaction->Switched(absl::OkStatus(), NowUs()));
}

void ReshardActor::On(const ReplicaLost& message) {
  if (!decided_.has_value() || decided_->map.epoch != message.map_epoch) return;
  Observe(absl::StrCat("lost ", message.worker));
  state_ = State::kDown;
  problem_ = std::string(message.status.message());
  reform_at_us_ = NowUs();
  ranks_.OnLost(message.worker);
  if (!change_.has_value()) return;
  ReshardTransaction& transaction = *change_->transaction;
  const std::optional<size_t> member = MemberOf(message.worker);
  if (transaction.phase() == ReshardPhase::kSwitching) {
    Apply(transaction.Switched(message.status, NowUs()));
  } else if (member.has_value()) {
    Apply(transaction.Lost(*member, message.status));
  } else {
    // The old layout is broken: it must be mended before anything else.
    Apply(transaction.Cancel(message.status));
  }
}

void ReshardActor::On(const ExpertsCounted& message) {
  const absl::Status added = loads_.Add(message.tokens);
  if (!added.ok()) LOG(WARNING) << config_.replica << ": " << added;
}

void ReshardActor::Drive() {
  if (!log_read_ || change_.has_value()) return;
  if (!decided_.has_value()) {
    if (NowUs() >= form_first_at_us_) FormFirst();
  } else if (state_ == State::kDown) {
    const auto& members = decided_->members;
    const bool whole = std::all_of(members.begin(), members.end(),
                                   [&](const std::string& worker) { return Serves(worker); });
    if (whole) {
      Serve();
    } else if (NowUs() >= reform_at_us_) {
      Reform();
    }
  } else if (state_ == State::kUp && !asked_.empty()) {
    StartAsked();
  } else if (state_ == State::kUp && NowUs() >= rebalance_at_us_) {
    MoveExperts();
  }
}

void ReshardActor::StartAsked() {
  ReshardAsked asked = std::move(asked_.front());
  asked_.pop_front();
  absl::StatusOr<Change> change = PlanRequest(asked.request);
  if (!change.ok()) {
    asked.tell(change.status());
    return;
  }
  change->tell = std::move(asked.tell);
  const uint32_t deadline_ms = asked.request.deadline_ms();
  Start(*std::move(change),
        NowUs() + (deadline_ms > 0 ? deadline_ms : config_.prepare_timeout_ms) * 1000);
}

void ReshardActor::MoveExperts() {
  rebalance_at_us_ = NowUs() + config_.rebalance.interval_ms * 1000;
  if (config_.rebalance.above <= 0 || !decided_->map.layout.expert_parallel || loads_.empty()) {
    return;
  }
  const double before = BalanceWith(decided_->map).mean();
  if (before <= config_.rebalance.above) return;
  v1::ReshardRequest request;
  request.set_by_load(true);
  absl::StatusOr<Change> change = PlanRequest(request);
  if (!change.ok()) return;  // nothing would be gained, or there is no room
  const double after = BalanceWith(change->to.map).mean();
  if (!WorthRebalancing(before, after, config_.rebalance)) return;
  LOG(INFO) << config_.replica << ": experts move: the busiest rank computes "
            << absl::StrFormat("%.2f times the mean, then %.2f", before, after);
  Start(*std::move(change), NowUs() + config_.prepare_timeout_ms * 1000);
}

void ReshardActor::FormFirst() {
  std::vector<std::string> names = Spares({});
  // Nobody has anything yet that they could read.
  std::erase_if(names, [&](const std::string& worker) { return ranks_.LacksWeights(worker); });
  const auto world = static_cast<size_t>(config_.layout.world());
  if (names.size() < world) return;
  names.resize(world);
  absl::StatusOr<ShardMap> map = BuildShardMap(*config_.model, config_.layout, 0);
  absl::StatusOr<Change> change =
      map.ok() ? MakeChange({*std::move(map), std::move(names)}) : map.status();
  if (!change.ok()) {
    LOG(ERROR) << config_.replica << ": the first layout cannot be: " << change.status();
    Fail(change.status());
    return;
  }
  Start(*std::move(change), NowUs() + config_.prepare_timeout_ms * 1000);
}

void ReshardActor::Reform() {
  reform_at_us_ = NowUs() + config_.retry_ms * 1000;
  std::vector<bool> alive;
  for (const std::string& worker : decided_->members) {
    alive.push_back(Serves(worker));
  }
  std::vector<std::string> whole;
  for (size_t r = 0; r < alive.size(); ++r) {
    if (alive[r]) whole.push_back(decided_->members[r]);
  }
  absl::StatusOr<SurvivorChoice> choice = ChooseSurvivors(
      *config_.model, decided_->map, decided_->members, alive, Spares(whole), config_.sizing);
  absl::StatusOr<Change> change =
      choice.ok() ? MakeChange({std::move(choice->map), std::move(choice->members)})
                  : choice.status();
  if (!change.ok()) {
    LOG(ERROR) << config_.replica << ": waits for ranks: " << change.status();
    problem_ = std::string(change.status().message());
    return;
  }
  LOG(WARNING) << config_.replica << ": " << whole.size() << " of " << alive.size()
               << " ranks are left and form " << NameOf(change->to.map.layout);
  Start(*std::move(change), NowUs() + config_.prepare_timeout_ms * 1000);
}

void ReshardActor::Serve() {
  state_ = State::kStarting;
  Observe("serve");
  ReplicaSpec spec;
  spec.name = config_.replica;
  spec.map = Proto(*decided_);
  for (const std::string& worker : decided_->members) {
    spec.members.push_back(ranks_.Machine(worker));
  }
  (void)fleet_.TellReply(ServeReplica{std::move(spec)});
}

std::optional<size_t> ReshardActor::MemberOf(const std::string& worker) const {
  const auto found = std::find(change_->workers.begin(), change_->workers.end(), worker);
  if (found == change_->workers.end()) return std::nullopt;
  return static_cast<size_t>(found - change_->workers.begin());
}

bool ReshardActor::Serves(const std::string& worker) const {
  return Live(worker) && ranks_.Holds(worker, decided_->map.epoch);
}

v1::ShardMap ReshardActor::Proto(const Placed& placed) const {
  v1::ShardMap proto = ToProto(placed.map);
  for (const std::string& worker : placed.members) *proto.add_members() = ranks_.Member(worker);
  return proto;
}

void ReshardActor::Observe(const std::string& what) const {
  if (observer_ != nullptr) observer_(what);
}

int64_t ReshardActor::NowUs() const { return clock().MonotonicNs() / 1000; }

}  // namespace troupe
