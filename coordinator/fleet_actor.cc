#include "coordinator/fleet_actor.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <utility>
#include <variant>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/log.h"
#include "coordinator/scheduler_actor.h"

namespace troupe {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(100);
constexpr size_t kMaxWorkerName = 256;

// Gathers what the replicas answer; replies when the last of them has, or has gone without.
class StatusCollector {
 public:
  StatusCollector(v1::ClusterStatus status, DescribeFleet request)
      : status_(std::move(status)), request_(std::move(request)) {}
  ~StatusCollector() {
    for (auto& [name, tenant] : tenants_) *status_.add_tenants() = std::move(tenant);
    request_.reply(std::move(status_));
  }
  StatusCollector(const StatusCollector&) = delete;
  StatusCollector& operator=(const StatusCollector&) = delete;

  void Add(v1::WorkerStatus worker, const std::vector<v1::TenantStatus>& tenants) {
    std::lock_guard lock(mutex_);
    status_.set_tokens_generated(status_.tokens_generated() + worker.tokens_generated());
    *status_.add_workers() = std::move(worker);
    for (const v1::TenantStatus& tenant : tenants) {
      v1::TenantStatus& sum = tenants_[tenant.tenant()];
      sum.set_tenant(tenant.tenant());
      sum.set_running(sum.running() + tenant.running());
      sum.set_waiting(sum.waiting() + tenant.waiting());
      sum.set_tokens_served(sum.tokens_served() + tenant.tokens_served());
    }
  }

 private:
  std::mutex mutex_;
  v1::ClusterStatus status_;
  std::map<std::string, v1::TenantStatus> tenants_;
  DescribeFleet request_;
};

}  // namespace

FleetActor::FleetActor(const Config& config, WorkerLinkFactory connect,
                       std::function<void(bool)> on_ready, ReshardFactory make_reshard)
    : config_(config),
      connect_(std::move(connect)),
      on_ready_(std::move(on_ready)),
      make_reshard_(std::move(make_reshard)) {}

void FleetActor::OnStart() {
  // Larger than those of any coordinator that ran before this one.
  next_epoch_ = absl::ToUnixMicros(clock().Now());
  if (make_reshard_ != nullptr) reshard_ = make_reshard_(self());
  TellAfter(kTick, FleetTick{});
}

void FleetActor::Handle(FleetMessage message) {
  std::visit([this](auto&& m) { On(std::forward<decltype(m)>(m)); }, std::move(message));
}

absl::Status FleetActor::CheckRegistration(const v1::RegisterWorkerRequest& request) const {
  if (request.worker().empty() || request.worker().size() > kMaxWorkerName) {
    return absl::InvalidArgumentError(absl::StrCat("worker: found a name of ",
                                                   request.worker().size(), " bytes, wanted 1 to ",
                                                   kMaxWorkerName));
  }
  if (request.address().empty()) {
    return absl::InvalidArgumentError("address: found none, wanted host:port or unix:PATH");
  }
  const auto found = workers_.find(request.worker());
  if (found == workers_.end()) return absl::OkStatus();
  const Worker& known = found->second;
  const bool live = known.state == v1::WorkerStatus::STATE_READY;
  if (live && known.incarnation != request.incarnation() && known.address != request.address()) {
    return absl::AlreadyExistsError(absl::StrCat("worker ", request.worker(), " is live at ",
                                                 known.address, "; give the worker at ",
                                                 request.address(), " another name"));
  }
  return absl::OkStatus();
}

void FleetActor::On(RegisterWorker message) {
  const absl::Status checked = CheckRegistration(message.request);
  if (!checked.ok()) {
    message.reply(checked);
    return;
  }
  const v1::RegisterWorkerRequest& request = message.request;
  if (request.takes_assignment()) {
    OnRank(std::move(message));
    return;
  }
  Worker& worker = workers_[request.worker()];
  worker.heard_us = NowUs();
  if (worker.state == v1::WorkerStatus::STATE_LOST) {
    worker.address = request.address();
    worker.incarnation = request.incarnation();
    if (worker.refused_incarnation != request.incarnation()) Dial(request.worker(), worker);
  } else if (worker.incarnation != request.incarnation()) {
    // The process was started anew: the session with the old one is over. The next heartbeat dials.
    (void)worker.scheduler.ref().TellReply(
        LinkDown{absl::UnavailableError("the worker was restarted")});
  }
  v1::RegisterWorkerReply reply;
  reply.set_heartbeat_ms(config_.heartbeat_ms);
  message.reply(std::move(reply));
}

void FleetActor::Dial(const std::string& name, Worker& worker) {
  worker.epoch = ++next_epoch_;
  worker.state = v1::WorkerStatus::STATE_CONNECTING;
  worker.affinity.emplace(config_.affinity_blocks);
  worker.scheduler = Spawn<SchedulerActor>(
      executor(), ActorOptions{.name = absl::StrCat("scheduler/", name)}, config_.scheduler, name,
      worker.address, worker.spec.has_value() ? worker.spec->map : std::nullopt, worker.epoch,
      connect_, self());
}

void FleetActor::On(ReplicaUp message) {
  const auto found = workers_.find(message.worker);
  if (found == workers_.end() || found->second.epoch != message.epoch) return;
  Worker& worker = found->second;
  const v1::WorkerInfo* model = Model();
  if (model != nullptr && model->identity() != message.info.identity()) {
    worker.refused_incarnation = worker.incarnation;
    LOG(ERROR) << "worker " << message.worker << " at " << worker.address << " serves model "
               << message.info.model() << " with another identity than the workers here ("
               << model->model() << "): refused; start it with the same folder and dtype";
    (void)worker.scheduler.ref().TellReply(
        LinkDown{absl::FailedPreconditionError("serves another model")});
    return;
  }
  worker.state = v1::WorkerStatus::STATE_READY;
  worker.info = std::move(message.info);
  LOG(INFO) << "worker " << message.worker << " at " << worker.address << " is ready";
  if (worker.spec.has_value()) {
    (void)reshard_.ref().TellReply(ReplicaServing{worker.spec->map->epoch()});
  }
  for (const Asker& asker : std::exchange(askers_, {})) {
    (void)asker.job.TellReply(ModelKnown{worker.info});
  }
  TellReadiness();
  PlacePending();
}

void FleetActor::On(ReplicaDown message) {
  const auto found = workers_.find(message.worker);
  if (found == workers_.end() || found->second.epoch != message.epoch) return;
  Worker& worker = found->second;
  LOG(WARNING) << "worker " << message.worker << " at " << worker.address
               << " is lost: " << message.status << "; " << message.sequences.size()
               << " sequences go on elsewhere";
  worker.state = v1::WorkerStatus::STATE_LOST;
  if (worker.next.has_value()) {
    worker.spec = std::exchange(worker.next, std::nullopt);
    Dial(message.worker, worker);
  } else if (worker.spec.has_value()) {
    (void)reshard_.ref().TellReply(
        ReplicaLost{worker.spec->map->epoch(), message.status, message.lost});
  }
  TellReadiness();
  absl::flat_hash_set<uint64_t> taken;
  std::vector<uint64_t> moved;
  for (SequenceRequest& sequence : message.sequences) {
    const auto routed = routed_.find(sequence.id);
    if (routed == routed_.end() || routed->second.worker != message.worker) continue;
    routed->second.sequence = std::move(sequence);
    moved.push_back(routed->first);
    taken.insert(routed->first);
  }
  // Those that the scheduler never took, because they met it on its way out.
  const size_t taken_count = moved.size();
  for (const auto& [id, routed] : routed_) {
    if (routed.worker == message.worker && !taken.contains(id)) moved.push_back(id);
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
  std::vector<std::map<std::string, Worker>::iterator> ready;
  for (auto it = workers_.begin(); it != workers_.end(); ++it) {
    const Worker& worker = it->second;
    if (worker.state != v1::WorkerStatus::STATE_READY) continue;
    ready.push_back(it);
    loads.push_back(
        {.tokens_outstanding = worker.prefill_tokens,
         .running = worker.sequences,
         .max_batch_size = config_.scheduler.max_batch_size,
         .prefix_tokens = worker.affinity->Match(routed.keys) * worker.info.block_tokens()});
  }
  const auto prompt_tokens = static_cast<uint32_t>(routed.sequence.tokens.size());
  const std::optional<size_t> chosen = Route(config_.router, loads, prompt_tokens);
  if (!chosen.has_value()) {
    routed.waiting_since_us = NowUs();
    pending_.push_back(id);
    return;
  }
  auto& [name, worker] = *ready[*chosen];
  const absl::Status told = worker.scheduler.ref().Tell(AddSequence{routed.sequence, routed.job});
  if (absl::IsUnavailable(told)) {
    // The scheduler is on its way out; its ReplicaDown will place this again.
    routed.worker = name;
    ++worker.sequences;
    return;
  }
  if (!told.ok()) {
    (void)routed.job.TellReply(SequenceFailed{told});
    routed_.erase(id);
    return;
  }
  routed.worker = name;
  routed.prefill_counted = true;
  ++worker.sequences;
  worker.prefill_tokens += prompt_tokens;
  worker.affinity->Insert(routed.keys);
}

void FleetActor::PlacePending() {
  for (uint64_t id : std::exchange(pending_, {})) {
    const auto found = routed_.find(id);
    if (found != routed_.end() && found->second.worker.empty()) Place(id, found->second);
  }
}

void FleetActor::Unplace(Routed& routed) {
  const auto found = workers_.find(routed.worker);
  routed.worker.clear();
  if (found == workers_.end()) return;
  Worker& worker = found->second;
  worker.sequences -= std::min(worker.sequences, 1u);
  if (std::exchange(routed.prefill_counted, false)) {
    worker.prefill_tokens -=
        std::min<uint64_t>(worker.prefill_tokens, routed.sequence.tokens.size());
  }
}

void FleetActor::On(PrefillEnded message) {
  const auto found = routed_.find(message.sequence);
  if (found == routed_.end() || !found->second.prefill_counted) return;
  found->second.prefill_counted = false;
  Worker& worker = workers_[found->second.worker];
  worker.prefill_tokens -=
      std::min<uint64_t>(worker.prefill_tokens, found->second.sequence.tokens.size());
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
  const auto worker = workers_.find(found->second.worker);
  if (worker != workers_.end()) {
    (void)worker->second.scheduler.ref().TellReply(RemoveSequence{message.sequence});
  }
  Unplace(found->second);
  routed_.erase(found);
}

void FleetActor::On(DescribeFleet message) {
  v1::ClusterStatus status;
  status.set_ready(ready_);
  if (const v1::WorkerInfo* model = Model()) status.set_model(model->model());
  for (const auto& [name, worker] : workers_) {
    if (worker.state != v1::WorkerStatus::STATE_LOST) continue;
    v1::WorkerStatus& lost = *status.add_workers();
    lost.set_worker(name);
    lost.set_address(worker.address);
    lost.set_epoch(worker.epoch);
    lost.set_state(worker.state);
  }
  auto collector = std::make_shared<StatusCollector>(std::move(status), std::move(message));
  for (const auto& [name, worker] : workers_) {
    if (worker.state == v1::WorkerStatus::STATE_LOST) continue;
    (void)worker.scheduler.ref().Tell(DescribeReplica{
        [collector](v1::WorkerStatus replica, const std::vector<v1::TenantStatus>& tenants) {
          collector->Add(std::move(replica), tenants);
        }});
  }
}

void FleetActor::On(FleetTick) {
  const int64_t now_us = NowUs();
  for (auto it = workers_.begin(); it != workers_.end();) {
    const bool silent = now_us - it->second.heard_us > config_.worker_timeout_ms * 1000;
    const bool lost = it->second.state == v1::WorkerStatus::STATE_LOST;
    if (silent && lost && !it->second.spec.has_value()) {
      it = workers_.erase(it);
    } else {
      ++it;
    }
  }
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
  for (const auto& [name, worker] : workers_) {
    if (worker.state == v1::WorkerStatus::STATE_READY) return &worker.info;
  }
  return nullptr;
}

void FleetActor::TellReadiness() {
  const bool ready = Model() != nullptr;
  if (std::exchange(ready_, ready) != ready) on_ready_(ready);
}

int64_t FleetActor::NowUs() const { return clock().MonotonicNs() / 1000; }

}  // namespace troupe
