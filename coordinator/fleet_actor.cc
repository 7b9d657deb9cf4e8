#include "coordinator/fleet_actor.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <variant>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/log.h"
#include "base/status_util.h"
#include "coordinator/scheduler_actor.h"
#include "coordinator/status_collector.h"

namespace troupe {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(100);
constexpr int64_t kMostFormPauses = 30;

SchedulerActor::Config SchedulerConfig(const FleetActor::Config& config) {
  return {.scheduler = config.scheduler,
          .gathering = config.gathering,
          .rank_timeout_us = config.rank_timeout_ms * 1000,
          .rank_lost_us = config.rank_lost_ms * 1000};
}

}  // namespace

FleetActor::FleetActor(const Config& config, WorkerLinkFactory connect,
                       std::function<void(bool)> on_ready, ReshardFactory make_reshard)
    : config_(config),
      connect_(std::move(connect)),
      on_ready_(std::move(on_ready)),
      make_reshard_(std::move(make_reshard)),
      muster_(config.ranks) {}

void FleetActor::OnStart() {
  // Larger than those of any coordinator that ran before this one.
  next_epoch_ = absl::ToUnixMicros(clock().Now());
  if (make_reshard_ != nullptr) reshard_ = make_reshard_(self());
  TellAfter(kTick, FleetTick{});
}

void FleetActor::Handle(FleetMessage message) {
  std::visit([this](auto&& m) { On(std::forward<decltype(m)>(m)); }, std::move(message));
}

void FleetActor::On(RegisterWorker message) {
  const absl::Status checked = muster_.Check(message.request);
  if (!checked.ok()) {
    message.reply(checked);
    return;
  }
  if (reshard_ && message.request.takes_assignment()) {
    OnRank(std::move(message));
    return;
  }
  const std::string& name = message.request.worker();
  if (muster_.Take(message.request, NowUs()) == Muster::Heard::kRestarted) {
    // The session with the old process is over. The next heartbeat takes the new one.
    Replica& replica = replicas_.at(muster_.workers().at(name).replica);
    int rank = 0;
    while (replica.spec.members[rank].worker != name) ++rank;
    (void)replica.scheduler.ref().TellReply(
        LinkDown{rank, absl::UnavailableError("the worker was restarted")});
  }
  FormReplicas();
  v1::RegisterWorkerReply reply;
  reply.set_heartbeat_ms(config_.heartbeat_ms);
  message.reply(std::move(reply));
}

void FleetActor::Dial(ReplicaSpec spec) {
  for (const ReplicaMember& member : spec.members) {
    const auto found = muster_.workers().find(member.worker);
    if (found == muster_.workers().end()) continue;  // the ReshardActor's
    found->second.replica = spec.name;
    found->second.epoch = spec.epoch;
  }
  Replica& replica = replicas_[spec.name];
  replica.affinity.emplace(config_.affinity_blocks);
  replica.spec = std::move(spec);
  replica.scheduler = Spawn<SchedulerActor>(
      executor(), ActorOptions{.name = absl::StrCat("scheduler/", replica.spec.name)},
      SchedulerConfig(config_), replica.spec, connect_, self());
}

void FleetActor::PauseForming() {
  const int64_t first_us = config_.form_retry_ms * 1000;
  form_pause_us_ = std::clamp(2 * form_pause_us_, first_us, kMostFormPauses * first_us);
  form_after_us_ = NowUs() + form_pause_us_;
}

FleetActor::Replica* FleetActor::Find(const std::string& name, uint64_t epoch) {
  const auto found = replicas_.find(name);
  if (found == replicas_.end() || found->second.spec.epoch != epoch) return nullptr;
  return &found->second;
}

void FleetActor::On(ReplicaUp message) {
  Replica* replica = Find(message.replica, message.epoch);
  if (replica == nullptr) return;
  const v1::WorkerInfo* model = Model();
  if (model != nullptr && model->identity() != message.info.identity()) {
    for (const ReplicaMember& member : replica->spec.members) {
      const auto found = muster_.workers().find(member.worker);
      if (found == muster_.workers().end()) continue;
      found->second.refused_incarnation = found->second.request.incarnation();
    }
    LOG(ERROR) << "worker " << message.replica << " at " << replica->spec.members.front().address
               << " serves model " << message.info.model()
               << " with another identity than the workers here (" << model->model()
               << "): refused; start it with the same folder and dtype";
    (void)replica->scheduler.ref().TellReply(
        LinkDown{0, absl::FailedPreconditionError("serves another model")});
    return;
  }
  replica->state = v1::WorkerStatus::STATE_READY;
  replica->info = std::move(message.info);
  replica->takes_over = false;
  if (replica->has_layouts) {
    (void)reshard_.ref().TellReply(ReplicaServing{replica->spec.map->epoch()});
  }
  form_pause_us_ = 0;
  last_problem_.clear();
  LOG(INFO) << "worker " << message.replica << " at " << replica->spec.members.front().address
            << " is ready" << Field("ranks", replica->spec.members.size());
  for (const Asker& asker : std::exchange(askers_, {})) {
    (void)asker.job.TellReply(ModelKnown{replica->info});
  }
  TellReadiness();
  PlacePending();
  (void)replica->scheduler.ref().TellReply(WaitingAdded{});
}

void FleetActor::On(const ReplicaHealth& message) {
  Replica* replica = Find(message.replica, message.epoch);
  if (replica == nullptr) return;
  const bool stuck = !message.problem.empty();
  if (stuck) {
    LOG(WARNING) << "replica " << message.replica << " is stuck: " << message.problem;
  } else {
    LOG(INFO) << "replica " << message.replica << " goes on";
  }
  replica->state = stuck ? v1::WorkerStatus::STATE_STUCK : v1::WorkerStatus::STATE_READY;
  TellReadiness();
  if (!stuck) PlacePending();
}

void FleetActor::On(ReplicaDown message) {
  Replica* replica = Find(message.replica, message.epoch);
  if (replica == nullptr) return;
  if (message.status.ok()) {
    LOG(INFO) << "worker " << message.replica << " hands " << message.sequences.size()
              << " sequences over to its next layout";
  } else {
    LOG(WARNING) << "worker " << message.replica << " at " << replica->spec.members.front().address
                 << " is lost: " << message.status << "; " << message.sequences.size()
                 << " sequences go on elsewhere";
  }
  const std::string culprit = message.rank < 0 ? "" : replica->spec.members[message.rank].worker;
  if (replica->has_layouts) {
    Replica down = std::move(*replica);
    replicas_.erase(message.replica);
    OnLayoutDown(std::move(down), culprit, message.status);
    MoveSequences(message.replica, std::move(message.sequences));
    TellReadiness();
    return;
  }
  const bool never_up = replica->state == v1::WorkerStatus::STATE_CONNECTING;
  if (replica->spec.members.size() > 1) {
    last_problem_ = std::string(message.status.message());
    if (never_up) PauseForming();
  }
  muster_.Release(message.replica, culprit);
  replicas_.erase(message.replica);
  TellReadiness();
  MoveSequences(message.replica, std::move(message.sequences));
  FormReplicas();
}

void FleetActor::MoveSequences(const std::string& replica, std::vector<SequenceRequest> given) {
  absl::flat_hash_set<uint64_t> taken;
  std::vector<uint64_t> moved;
  for (SequenceRequest& sequence : given) {
    const auto routed = routed_.find(sequence.id);
    if (routed == routed_.end() || routed->second.replica != replica) continue;
    routed->second.sequence = std::move(sequence);
    moved.push_back(routed->first);
    taken.insert(routed->first);
  }
  // Those that the scheduler never took, because they met it on its way out.
  const size_t taken_count = moved.size();
  for (const auto& [id, routed] : routed_) {
    if (routed.replica == replica && !taken.contains(id)) moved.push_back(id);
  }
  std::sort(moved.begin() + static_cast<ptrdiff_t>(taken_count), moved.end());
  for (uint64_t id : moved) {
    Routed& routed = routed_[id];
    Unplace(routed);
    Place(id, routed);
  }
}

void FleetActor::On(AskModel message) {
  if (const v1::WorkerInfo* model = Model()) {
    (void)message.job.TellReply(ModelKnown{*model});
    return;
  }
  if (askers_.size() >= config_.max_pending) {
    (void)message.job.TellReply(ModelKnown{absl::UnavailableError(absl::StrCat(
        "no worker is ready and ", askers_.size(), " requests wait for one; retry later"))});
    return;
  }
  askers_.push_back({std::move(message.job), NowUs()});
}

void FleetActor::On(RouteSequence message) {
  const uint64_t id = message.sequence.id;
  Routed& routed = routed_[id];
  routed.sequence = std::move(message.sequence);
  routed.keys = std::move(message.keys);
  routed.job = std::move(message.job);
  Place(id, routed);
}

void FleetActor::Place(uint64_t id, Routed& routed) {
  std::vector<ReplicaLoad> loads;
  std::vector<std::map<std::string, Replica>::iterator> ready;
  for (auto it = replicas_.begin(); it != replicas_.end(); ++it) {
    const Replica& replica = it->second;
    if (replica.state != v1::WorkerStatus::STATE_READY) continue;
    ready.push_back(it);
    const uint32_t homes = replica.spec.layout().dp();
    loads.push_back(
        {.tokens_outstanding = replica.prefill_tokens,
         .running = replica.sequences,
         .max_batch_size = config_.scheduler.max_batch_size * homes,
         .prefix_tokens = replica.affinity->Match(routed.keys) * replica.info.block_tokens()});
  }
  const auto prompt_tokens = static_cast<uint32_t>(routed.sequence.tokens.size());
  const std::optional<size_t> chosen = Route(config_.router, loads, prompt_tokens);
  if (!chosen.has_value()) {
    routed.waiting_since_us = NowUs();
    pending_.push_back(id);
    return;
  }
  auto& [name, replica] = *ready[*chosen];
  const absl::Status told =
      replica.scheduler.ref().Tell(AddSequence{routed.sequence, routed.keys, routed.job});
  if (absl::IsUnavailable(told)) {
    // The scheduler is on its way out; its ReplicaDown will place this again.
    routed.replica = name;
    ++replica.sequences;
    return;
  }
  if (!told.ok()) {
    (void)routed.job.TellReply(SequenceFailed{told});
    routed_.erase(id);
    return;
  }
  routed.replica = name;
  routed.prefill_counted = true;
  ++replica.sequences;
  replica.prefill_tokens += prompt_tokens;
  replica.affinity->Insert(routed.keys);
}

void FleetActor::PlacePending() {
  for (uint64_t id : std::exchange(pending_, {})) {
    const auto found = routed_.find(id);
    if (found != routed_.end() && found->second.replica.empty()) Place(id, found->second);
  }
}

void FleetActor::Unplace(Routed& routed) {
  const auto found = replicas_.find(std::exchange(routed.replica, ""));
  const bool counted = std::exchange(routed.prefill_counted, false);
  if (found == replicas_.end()) return;
  Replica& replica = found->second;
  replica.sequences -= std::min(replica.sequences, 1u);
  if (counted) {
    replica.prefill_tokens -=
        std::min<uint64_t>(replica.prefill_tokens, routed.sequence.tokens.size());
  }
}

void FleetActor::On(PrefillEnded message) {
  const auto found = routed_.find(message.sequence);
  if (found == routed_.end() || !found->second.prefill_counted) return;
  found->second.prefill_counted = false;
  Replica& replica = replicas_[found->second.replica];
  replica.prefill_tokens -=
      std::min<uint64_t>(replica.prefill_tokens, found->second.sequence.tokens.size());
}

void FleetActor::On(SequenceEnded message) {
  const auto found = routed_.find(message.sequence);
  if (found == routed_.end()) return;
  Unplace(found->second);
  routed_.erase(found);
}

void FleetActor::On(DropSequence message) {
  const auto found = routed_.find(message.sequence);
  if (found == routed_.end()) return;
  const auto replica = replicas_.find(found->second.replica);
  if (replica != replicas_.end()) {
    (void)replica->second.scheduler.ref().TellReply(RemoveSequence{message.sequence});
  }
  Unplace(found->second);
  routed_.erase(found);
}

void FleetActor::On(DescribeFleet message) {
  v1::ClusterStatus status;
  status.set_ready(ready_);
  if (const v1::WorkerInfo* model = Model()) status.set_model(model->model());
  muster_.Describe(last_problem_, status);
  auto collector = std::make_shared<StatusCollector>(std::move(status), std::move(message));
  if (reshard_) DescribeSpareRanks(collector);
  for (const auto& [name, replica] : replicas_) {
    (void)replica.scheduler.ref().Tell(DescribeReplica{
        [collector](v1::WorkerStatus status, const std::vector<v1::TenantStatus>& tenants) {
          collector->Add(std::move(status), tenants);
        }});
  }
}

void FleetActor::WarnOfMissingRanks() {
  const std::string wanting = muster_.Wanting();
  if (wanting.empty()) {
    wanting_since_us_.reset();
    wanting_told_ = false;
    return;
  }
  if (!wanting_since_us_.has_value()) wanting_since_us_ = NowUs();
  const bool due = NowUs() - *wanting_since_us_ >= config_.no_worker_timeout_ms * 1000;
  if (due && !std::exchange(wanting_told_, true)) {
    LOG(WARNING) << "no replica for " << config_.no_worker_timeout_ms / 1000 << " s: " << wanting;
  }
}

void FleetActor::On(FleetTick) {
  const int64_t now_us = NowUs();
  muster_.Forget(now_us - config_.worker_timeout_ms * 1000);
  WarnOfMissingRanks();
  FormReplicas();
  const int64_t limit_us = config_.no_worker_timeout_ms * 1000;
  const absl::Status late = absl::UnavailableError(absl::StrCat(
      "no worker was ready for ", config_.no_worker_timeout_ms, " ms; start one, or retry later"));
  std::erase_if(askers_, [&](const Asker& asker) {
    if (!asker.job.alive()) return true;
    if (now_us - asker.since_us < limit_us) return false;
    (void)asker.job.TellReply(ModelKnown{late});
    return true;
  });
  std::erase_if(pending_, [&](uint64_t id) {
    const auto found = routed_.find(id);
    if (found == routed_.end()) return true;
    if (now_us - found->second.waiting_since_us < limit_us) return false;
    (void)found->second.job.TellReply(SequenceFailed{late});
    routed_.erase(found);
    return true;
  });
  TellAfter(kTick, FleetTick{});
}

const v1::WorkerInfo* FleetActor::Model() const {
  for (const auto& [name, replica] : replicas_) {
    if (replica.state == v1::WorkerStatus::STATE_READY || replica.takes_over) return &replica.info;
  }
  return nullptr;
}

void FleetActor::TellReadiness() {
  const bool ready = Model() != nullptr;
  if (std::exchange(ready_, ready) != ready) on_ready_(ready);
}

int64_t FleetActor::NowUs() const { return clock().MonotonicNs() / 1000; }

}  // namespace troupe
