// One change of layout: its plan, what the transaction wants done, and its end. See
// reshard_actor.h.

#include <algorithm>
#include <utility>
#include <variant>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/log.h"
#include "base/status_util.h"
#include "coordinator/reshard/reshard_actor.h"
#include "sharding/layout_rules.h"
#include "sharding/rebalance.h"
#include "sharding/shard_map_proto.h"
#include "sharding/survivor_layout.h"

namespace troupe {
namespace {

// Between two reports of progress that say nothing but bytes.
constexpr int64_t kProgressUs = 500'000;

v1::PartSource ToProto(const PartLoad& load) {
  v1::PartSource source;
  source.set_role(static_cast<uint32_t>(load.part.role));
  source.set_layer(load.part.layer);
  source.set_expert(load.part.expert);
  source.set_rank(static_cast<uint32_t>(load.from_old_rank));
  return source;
}

}  // namespace

absl::StatusOr<ReshardActor::Change> ReshardActor::PlanRequest(
    const v1::ReshardRequest& request) const {
  if (!decided_.has_value()) {
    return absl::UnavailableError(absl::StrCat(config_.replica, " has no layout yet: found ",
                                               Spares({}).size(), " ranks, wanted ",
                                               config_.layout.world()));
  }
  Layout layout = decided_->map.layout;
  if (request.has_layout() || !request.by_load()) {
    v1::ShardMap wanted;
    *wanted.mutable_layout() = request.layout();
    TROUPE_ASSIGN_OR_RETURN(const ShardMap sizes, FromProto(wanted));
    layout = sizes.layout;
  }
  TROUPE_ASSIGN_OR_RETURN(ShardMap map, BuildShardMap(*config_.model, layout, 0));
  // Those that serve keep their numbers; then those that do not.
  std::vector<std::string> names;
  for (const std::string& worker : decided_->members) {
    if (Live(worker)) names.push_back(worker);
  }
  for (std::string& worker : Spares(names)) names.push_back(std::move(worker));
  const auto world = static_cast<size_t>(layout.world());
  if (names.size() < world) {
    return absl::FailedPreconditionError(absl::StrCat(
        NameOf(layout), " needs ", world, " ranks, found ", names.size(), "; start more workers"));
  }
  names.resize(world);
  const std::vector<bool> alive(decided_->members.size(), true);
  const RankMatch match = MatchRanks(decided_->members, names, alive);
  map = CarryExperts(decided_->map, map, match);
  if (!request.by_load()) return MakeChange({std::move(map), std::move(names)});
  if (loads_.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(config_.replica,
                     " has not counted yet which experts tokens choose: found 0 "
                     "reports, wanted one; try again once it has served some requests"));
  }
  TROUPE_ASSIGN_OR_RETURN(Rebalance moved,
                          RebalanceExperts(*config_.model, decided_->map, map, loads_, match,
                                           config_.sizing, config_.rates));
  TROUPE_ASSIGN_OR_RETURN(Change change, MakeChange({std::move(moved.map), std::move(names)}));
  change.layers_left = moved.layers_left;
  return change;
}

v1::ExpertBalance ReshardActor::BalanceWith(const ShardMap& map) const {
  const StageBalance balance = BalanceOf(loads_, map.experts, map.layout.tp * map.layout.dp);
  v1::ExpertBalance out;
  out.set_mean(balance.mean);
  out.set_worst(balance.worst);
  out.set_worst_layer(std::max(0, balance.worst_layer));
  return out;
}

RankMatch ReshardActor::Match(const std::vector<std::string>& members) const {
  std::vector<std::string> old_names;
  std::vector<bool> alive;
  if (decided_.has_value()) old_names = decided_->members;
  for (const std::string& worker : old_names) alive.push_back(Serves(worker));
  RankMatch match = MatchRanks(old_names, members, alive);
  for (const std::string& worker : old_names) {
    match.old_serves.push_back(ranks_.ServesWeights(worker));
  }
  for (const std::string& worker : members) {
    match.new_lacks.push_back(ranks_.LacksWeights(worker));
  }
  return match;
}

absl::StatusOr<ReshardActor::Change> ReshardActor::MakeChange(Placed to) const {
  Change change;
  to.map.epoch = last_epoch_ + 1;
  std::vector<std::string> old_names;
  if (decided_.has_value()) old_names = decided_->members;
  const RankMatch match = Match(to.members);
  TROUPE_ASSIGN_OR_RETURN(
      change.plan, PlanReshard(*config_.model, decided_.has_value() ? &decided_->map : nullptr,
                               to.map, match, config_.sizing, config_.rates));
  std::vector<ReshardMember> members;
  for (size_t r = 0; r < to.members.size(); ++r) {
    const std::vector<WeightPart> parts =
        PartsOf(ShardOf(*config_.model, to.map, static_cast<int>(r)), config_.sizing.with_mtp);
    members.push_back({.worker = to.members[r],
                       .in_old = match.old_of_new[r] != kNoRank,
                       .in_new = true,
                       .digest = PartsDigest(*config_.model, parts)});
  }
  for (size_t r = 0; r < old_names.size(); ++r) {
    const bool stays =
        std::find(to.members.begin(), to.members.end(), old_names[r]) != to.members.end();
    if (!stays && match.old_alive[r]) members.push_back({.worker = old_names[r], .in_old = true});
  }
  for (const ReshardMember& member : members) change.workers.push_back(member.worker);
  change.transaction = std::make_unique<ReshardTransaction>(
      ReshardTransaction::Config{.old_epoch = decided_.has_value() ? decided_->map.epoch : 0,
                                 .new_epoch = to.map.epoch,
                                 .retire_timeout_us = config_.retire_timeout_ms * 1000},
      std::move(members));
  change.to = std::move(to);
  return change;
}

void ReshardActor::Start(Change change, int64_t deadline_us) {
  last_epoch_ = change.to.map.epoch;
  change.started_us = NowUs();
  rebalance_at_us_ = change.started_us + config_.rebalance.interval_ms * 1000;
  change_ = std::move(change);
  LOG(INFO) << config_.replica << ": change to " << NameOf(change_->to.map.layout)
            << " begins at epoch " << last_epoch_;
  if (change_->tell.has_value()) {
    v1::ReshardEvent event;
    *event.mutable_plan() = Describe(*change_);
    (*change_->tell)(std::move(event));
  }
  Apply(change_->transaction->Start(deadline_us));
}

void ReshardActor::Apply(ReshardActions actions) {
  if (actions.empty()) return;
  for (const ReshardAction& action : actions) {
    std::visit(
        Overloaded{[&](const WriteBegin&) { Append(DecisionKind::kBegin); },
                   [&](const AskPrepare& ask) { Ask(ask); },
                   [&](const WriteDecision&) { Append(DecisionKind::kDecide); },
                   [&](const SwitchServing&) { Switch(); }, [&](const AskRetire& ask) { Ask(ask); },
                   [&](const EndReshard& end) { End(end); }},
        action);
  }
  if (change_.has_value()) TellProgress();
}

void ReshardActor::Ask(const AskPrepare& action) {
  const std::string& worker = change_->workers[action.member];
  Observe(absl::StrCat("prepare ", worker));
  v1::PrepareShardRequest request;
  *request.mutable_map() = Proto(change_->to);
  // Members of the new map come first, in the order of its ranks.
  request.set_rank(static_cast<uint32_t>(action.member));
  if (decided_.has_value()) {
    *request.mutable_serving() = Proto(*decided_);
    for (v1::RankMember& member : *request.mutable_serving()->mutable_members()) {
      if (!Serves(member.worker())) member.clear_address();
    }
  }
  for (const RankMove& move : change_->plan.ranks) {
    if (move.new_rank != static_cast<int>(action.member)) continue;
    for (const PartLoad& load : move.loads) {
      if (load.from_old_rank != kNoRank) *request.add_sources() = ToProto(load);
    }
  }
  change_->calls[worker] = control_->Prepare(ranks_.Member(worker), request, self());
}

void ReshardActor::Ask(const AskRetire& action) {
  const std::string& worker = change_->workers[action.member];
  change_->calls.erase(worker);
  Observe(absl::StrCat("retire ", worker));
  control_->Retire(ranks_.Member(worker), action.keep_epoch, change_->to.map.epoch, self());
}

absl::Status ReshardActor::CheckModel(const PrepareEnded& message) {
  if (!message.digest.ok() || change_->transaction->phase() != ReshardPhase::kPreparing) {
    return absl::OkStatus();
  }
  ReadModel& first = change_->model;
  if (first.identity.empty()) first = {message.identity, message.worker};
  const bool known = !model_.identity.empty();
  const ReadModel& wanted = known ? model_ : first;
  if (message.identity == wanted.identity) return absl::OkStatus();
  std::string who = absl::StrCat("which rank ", wanted.worker, " has prepared");
  if (known) {
    who = wanted.worker.empty() ? "with which the layout that serves was decided"
                                : absl::StrCat("with which rank ", wanted.worker, " serves");
  }
  return absl::FailedPreconditionError(
      absl::StrCat("rank ", message.worker, " has prepared another model: found identity ",
                   absl::BytesToHexString(message.identity), ", wanted ",
                   absl::BytesToHexString(wanted.identity), ", ", who,
                   "; start all ranks with the same folder, dtype and quantisation"));
}

absl::Status ReshardActor::CheckWeights(const PrepareEnded& message) {
  const ReshardTransaction& transaction = *change_->transaction;
  if (!message.digest.ok() || transaction.phase() != ReshardPhase::kPreparing) {
    return absl::OkStatus();
  }
  TROUPE_RETURN_IF_ERROR(change_->weights.Add(message.worker, message.weights));
  if (transaction.prepared() + 1 < transaction.to_prepare()) return absl::OkStatus();
  if (weights_.has_value()) return change_->weights.CheckSame(*weights_);
  const uint64_t found = change_->weights.Total();
  if (weights_digest_ == 0 || found == weights_digest_) return absl::OkStatus();
  return absl::DataLossError(absl::StrFormat(
      "all weights add up to digest %016x, wanted %016x, as was decided with the layout that "
      "serves; the checkpoint of a rank is damaged, or another than before",
      found, weights_digest_));
}

void ReshardActor::Append(DecisionKind kind) {
  const uint64_t epoch = change_->to.map.epoch;
  Observe(kind == DecisionKind::kBegin ? "write begin" : "write decision");
  v1::ShardMap map = Proto(change_->to);
  if (kind == DecisionKind::kDecide) {
    map.set_weights_digest(change_->weights.Total());
    map.set_identity(change_->model.identity);
  }
  log_->Append(kind, map, [actor = self(), epoch, kind](absl::Status status) {
    (void)actor.TellReply(LogWritten{epoch, kind, std::move(status)});
  });
}

void ReshardActor::Switch() {
  change_->decided_us = NowUs();
  decided_ = change_->to;
  model_ = change_->model;
  weights_ = std::move(change_->weights);
  weights_digest_ = weights_->Total();
  Serve();
}

void ReshardActor::End(const EndReshard& action) {
  Change change = *std::move(change_);
  change_.reset();
  Observe(action.decided ? "ended" : "rolled back");
  if (action.status.ok()) {
    LOG(INFO) << config_.replica << ": serves " << NameOf(change.to.map.layout) << " at epoch "
              << change.to.map.epoch;
  } else {
    LOG(WARNING) << config_.replica << ": change to " << NameOf(change.to.map.layout)
                 << (action.decided ? " was decided, then ranks were lost: " : " was rolled back: ")
                 << action.status;
    if (state_ == State::kDown) problem_ = std::string(action.status.message());
    reform_at_us_ = std::max(reform_at_us_, NowUs());
    form_first_at_us_ = NowUs() + config_.retry_ms * 1000;
  }
  if (!change.tell.has_value()) return;
  if (!action.status.ok()) {
    const std::string what = action.decided ? absl::StrCat("decided at epoch ", change.to.map.epoch,
                                                           ", then ranks were lost")
                                            : "rolled back, the old layout stays";
    (*change.tell)(absl::AbortedError(absl::StrCat(what, ": ", action.status.message())));
    return;
  }
  v1::ReshardEvent event;
  event.mutable_outcome()->set_epoch(change.to.map.epoch);
  event.mutable_outcome()->set_prepare_us(change.decided_us - change.started_us);
  event.mutable_outcome()->set_peer_bytes(change.peer_bytes);
  event.mutable_outcome()->set_disk_bytes(change.disk_bytes);
  event.mutable_outcome()->set_switch_us(change.ready_us - change.decided_us);
  (*change.tell)(std::move(event));
}

void ReshardActor::TellProgress() {
  if (!change_->tell.has_value()) return;
  const ReshardPhase phase = change_->transaction->phase();
  const uint32_t prepared = change_->transaction->prepared();
  const bool news = phase != change_->told_phase || prepared != change_->told_prepared;
  if (!news && NowUs() - change_->told_us < kProgressUs) return;
  change_->told_phase = phase;
  change_->told_prepared = prepared;
  change_->told_us = NowUs();
  v1::ReshardEvent event;
  v1::ReshardProgress& progress = *event.mutable_progress();
  progress.set_phase(NameOf(phase));
  // Ranks say how far they are with what they load.
  double done = 0;
  int64_t total = 0;
  for (const RankMove& move : change_->plan.ranks) {
    total += move.load_bytes();
    if (move.new_rank == kNoRank) continue;
    const auto found = change_->done.find(change_->to.members[move.new_rank]);
    if (found == change_->done.end()) continue;
    done += found->second * static_cast<double>(move.load_bytes());
  }
  progress.set_bytes_done(static_cast<uint64_t>(done));
  progress.set_bytes_total(total);
  progress.set_ranks_prepared(prepared);
  progress.set_ranks(change_->transaction->to_prepare());
  (*change_->tell)(std::move(event));
}

v1::ReshardPlan ReshardActor::Describe(const Change& change) const {
  v1::ReshardPlan out;
  if (decided_.has_value()) {
    out.set_from(NameOf(decided_->map.layout));
    out.set_from_epoch(decided_->map.epoch);
  }
  out.set_to(NameOf(change.to.map.layout));
  out.set_to_epoch(change.to.map.epoch);
  out.set_seconds(change.plan.seconds);
  out.set_layers_left(change.layers_left);
  const ShardMap& to = change.to.map;
  if (decided_.has_value() && decided_->map.layout.expert_parallel && !loads_.empty()) {
    *out.mutable_balance_before() = BalanceWith(decided_->map);
  }
  if (to.layout.expert_parallel && !loads_.empty()) *out.mutable_balance_after() = BalanceWith(to);
  for (const RankMove& move : change.plan.ranks) {
    v1::RankMove& rank = *out.add_ranks();
    rank.set_worker(move.new_rank != kNoRank ? change.to.members[move.new_rank]
                                             : decided_->members[move.old_rank]);
    rank.set_from_rank(move.old_rank);
    rank.set_to_rank(move.new_rank);
    rank.set_keep_bytes(move.keep_bytes);
    rank.set_peer_bytes(move.peer_bytes);
    rank.set_disk_bytes(move.disk_bytes);
    rank.set_drop_bytes(move.drop_bytes);
    rank.set_peak_bytes(move.peak_bytes);
    rank.set_memory_bytes(config_.sizing.memory_bytes);
    rank.set_seconds(move.seconds);
    std::map<int, int64_t> reads;  // by old rank
    for (const PartLoad& load : move.loads) {
      if (load.from_old_rank != kNoRank) reads[load.from_old_rank] += load.bytes;
    }
    for (const auto& [from, bytes] : reads) {
      v1::PeerRead& read = *rank.add_reads();
      read.set_worker(decided_->members[from]);
      read.set_bytes(bytes);
    }
  }
  return out;
}

}  // namespace troupe
