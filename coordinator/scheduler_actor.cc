#include "coordinator/scheduler_actor.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "base/log.h"
#include "base/status_util.h"
#include "coordinator/home_choice.h"
#include "coordinator/replica_status.h"

namespace troupe {
namespace {

// From a rank's word that it has lost another until the session ends without a culprit.
constexpr absl::Duration kCulpritWait = absl::Milliseconds(100);

}  // namespace

SchedulerActor::SchedulerActor(const Config& config, ReplicaSpec spec, WorkerLinkFactory connect,
                               ActorRef<FleetMessage> fleet)
    : config_(config),
      spec_(std::move(spec)),
      connect_(std::move(connect)),
      fleet_(std::move(fleet)),
      steps_(spec_.layout(), spec_.epoch) {}

void SchedulerActor::OnStart() {
  gathering_.emplace(spec_, config_.gathering, NowUs());
  for (size_t rank = 0; rank < spec_.members.size(); ++rank) {
    v1::Hello hello;
    hello.set_coordinator("troupe-coordinator");
    hello.set_epoch(spec_.epoch);
    if (spec_.map.has_value()) {
      hello.mutable_assignment()->set_rank(rank);
      *hello.mutable_assignment()->mutable_map() = *spec_.map;
    }
    links_.push_back(connect_(spec_.members[rank].address, hello, self()));
  }
  On(HealthTick{});
}

void SchedulerActor::Handle(SchedulerMessage message) {
  std::visit([this](auto&& m) { On(std::forward<decltype(m)>(m)); }, std::move(message));
  if (handing_over_) {
    if (steps_.in_flight() == 0) GiveUp(/*rank=*/-1, absl::OkStatus());
  } else if (begun() && may_plan_) {
    PlanAndDispatch();
  }
}

void SchedulerActor::PlanAndDispatch() {
  const int64_t start_ns = clock().MonotonicNs();
  // Ranks step together, so homes may not run ahead of each other.
  while (steps_.in_flight() < config_.scheduler.max_steps_in_flight) {
    JointSteps::Plans plans;
    for (Home& home : homes_) plans.push_back(home.scheduler->Plan(NowUs()));
    const bool any =
        std::any_of(plans.begin(), plans.end(), [](const auto& plan) { return plan.has_value(); });
    if (!any) break;
    Dispatch(std::move(plans));
  }
  plan_ns_total_ += clock().MonotonicNs() - start_ns;

  std::optional<int64_t> next_us;
  // While no step may be sent, a result is what to wait for.
  const bool may_send = steps_.in_flight() < config_.scheduler.max_steps_in_flight;
  for (const Home& home : homes_) {
    const std::optional<int64_t> at_us =
        may_send ? home.scheduler->NextWakeup(NowUs()) : std::nullopt;
    if (at_us.has_value()) next_us = std::min(next_us.value_or(*at_us), *at_us);
  }
  if (next_us == wakeup_at_us_) return;
  if (wakeup_at_us_.has_value()) CancelTimer(wakeup_);
  wakeup_at_us_ = next_us;
  if (!next_us.has_value()) return;
  wakeup_ = TellAfter(absl::Microseconds(std::max<int64_t>(0, *next_us - NowUs())), PlanAgain{});
}

void SchedulerActor::Dispatch(JointSteps::Plans plans) {
  last_step_us_ = NowUs();
  std::vector<v1::StepPlan> joined = steps_.Join(std::move(plans), last_step_us_);
  std::vector<int> left(joined.size());
  for (size_t rank = 0; rank < links_.size(); ++rank) ++left[steps_.HomeOf(static_cast<int>(rank))];
  for (size_t rank = 0; rank < links_.size(); ++rank) {
    const int home = steps_.HomeOf(static_cast<int>(rank));
    // The last of a home's ranks takes the plan itself.
    if (--left[home] == 0) {
      links_[rank]->Send(std::move(joined[home]));
    } else {
      links_[rank]->Send(v1::StepPlan(joined[home]));
    }
  }
}

size_t SchedulerActor::HomeFor(const AddSequence& message) const {
  if (homes_.size() == 1) return 0;
  // Where its state lies, before all others.
  std::vector<size_t> candidates;
  for (size_t home = 0; home < homes_.size(); ++home) {
    if (homes_[home].Keeps(message.sequence)) candidates.push_back(home);
  }
  if (candidates.empty()) {
    candidates.resize(homes_.size());
    std::iota(candidates.begin(), candidates.end(), size_t{0});
  }
  std::vector<HomeLoad> loads;
  for (const size_t candidate : candidates) {
    const Home& home = homes_[candidate];
    loads.push_back({.tokens = home.tokens,
                     .sequences = home.sequences,
                     .prefix_tokens = home.scheduler->CountLocalBlocks(message.keys) *
                                      home.scheduler->replica().block_tokens});
  }
  return candidates[ChooseHome(loads, message.sequence.tokens.size())];
}

void SchedulerActor::On(AddSequence message) {
  const uint64_t id = message.sequence.id;
  absl::Status added = absl::UnavailableError("the worker's session is not up");
  Job job{.ref = std::move(message.job), .tokens = message.sequence.tokens.size()};
  if (begun()) {
    job.home = HomeFor(message);
    Home& home = homes_[job.home];
    added = home.Keeps(message.sequence) ? home.scheduler->Resume(std::move(message.sequence))
                                         : home.scheduler->Add(std::move(message.sequence));
  }
  if (!added.ok()) {
    (void)job.ref.TellReply(SequenceFailed{added});
    (void)fleet_.TellReply(SequenceEnded{id});
    return;
  }
  (void)job.ref.TellReply(SequenceStarted{spec_.name});
  homes_[job.home].tokens += job.tokens;
  ++homes_[job.home].sequences;
  jobs_[id] = std::move(job);
}

void SchedulerActor::On(WaitingAdded /*message*/) { may_plan_ = true; }

void SchedulerActor::On(RemoveSequence message) {
  const auto job = jobs_.find(message.sequence);
  if (job == jobs_.end()) return;
  homes_[job->second.home].scheduler->Cancel(message.sequence);
  Forget(job);
}

void SchedulerActor::Forget(absl::flat_hash_map<uint64_t, Job>::iterator job) {
  Home& home = homes_[job->second.home];
  home.tokens -= job->second.tokens;
  --home.sequences;
  jobs_.erase(job);
}

void SchedulerActor::On(RankLoading message) {
  gathering_->OnLoading(message.rank, std::move(message.loading), NowUs());
}

void SchedulerActor::On(RankContribution message) {
  auto meeting = gathering_->OnContribution(message.rank, std::move(message.bytes), NowUs());
  if (!meeting.ok()) return GiveUp(message.rank, meeting.status());
  if (!meeting->has_value()) return;
  for (const auto& link : links_) link->Send(**meeting);
}

void SchedulerActor::On(LinkUp message) {
  absl::Status taken = gathering_->OnInfo(message.rank, std::move(message.info), NowUs());
  if (taken.ok() && gathering_->complete()) taken = Begin();
  if (!taken.ok()) GiveUp(message.rank, std::move(taken));
}

absl::Status SchedulerActor::Begin() {
  std::vector<Home> homes(steps_.homes());
  for (size_t home = 0; home < homes.size(); ++home) {
    const v1::WorkerInfo info = gathering_->HomeInfo(static_cast<int>(home));
    homes[home].kept_epoch = info.kept_epoch();
    homes[home].kept_home = info.kept_home();
    absl::StatusOr<ReplicaInfo> replica = ReplicaInfo::From(info);
    if (!replica.ok()) return Annotate(replica.status(), absl::StrCat("replica ", spec_.name));
    homes[home].scheduler =
        std::make_unique<Scheduler>(config_.scheduler, *std::move(replica), spec_.epoch);
  }
  homes_ = std::move(homes);
  info_ = gathering_->HomeInfo(0);
  last_step_us_ = NowUs();
  (void)fleet_.TellReply(ReplicaUp{spec_.name, spec_.epoch, info_});
  return absl::OkStatus();
}

void SchedulerActor::On(StepDone message) {
  if (!begun()) return;
  gathering_->OnSign(message.rank, NowUs());
  auto results = steps_.Add(message.rank, std::move(message.result));
  if (!results.ok()) return GiveUp(message.rank, results.status());
  if (results->has_value()) Retire(**results);
}

void SchedulerActor::Retire(const JointSteps::Results& results) {
  uint64_t forward_us = 0;
  for (size_t home = 0; home < results.size(); ++home) {
    if (!results[home].has_value()) continue;
    forward_us = std::max<uint64_t>(forward_us, results[home]->forward_us());
    const int64_t start_ns = clock().MonotonicNs();
    auto events = homes_[home].scheduler->Retire(*results[home], NowUs());
    plan_ns_total_ += clock().MonotonicNs() - start_ns;
    if (!events.ok()) return GiveUp(/*rank=*/-1, events.status());
    for (const SequenceEvent& event : *events) TellJob(event, *results[home]);
  }
  forward_us_total_ += forward_us;
}

void SchedulerActor::TellJob(const SequenceEvent& event, const v1::StepResult& result) {
  const auto job = jobs_.find(event.sequence);
  if (job == jobs_.end()) return;
  if (event.has_token && !std::exchange(job->second.decoding, true)) {
    (void)fleet_.TellReply(PrefillEnded{event.sequence});
  }
  if (event.finish == FinishReason::kDamaged) {
    (void)job->second.ref.TellReply(SequenceFailed{absl::InternalError(
        absl::StrCat("worker ", spec_.name,
                     " computed no usable logits: its weights or its memory are damaged"))});
    (void)fleet_.TellReply(SequenceEnded{event.sequence});
    Forget(job);
    return;
  }
  SequenceProgress progress{event, std::nullopt};
  if (progress.event.logprobs_index >= 0) {
    progress.logprobs = result.logprobs(progress.event.logprobs_index);
  }
  const uint64_t id = progress.event.sequence;
  const bool finished = progress.event.finish != FinishReason::kNone;
  (void)job->second.ref.TellReply(std::move(progress));
  if (!finished) return;
  Forget(job);
  (void)fleet_.TellReply(SequenceEnded{id});
}

void SchedulerActor::On(LinkDown message) {
  absl::Status reason = std::move(message.status);
  if (links_.size() > 1) {
    reason = Annotate(reason, gathering_->Name(message.rank));
  }
  // A rank that has lost another is there, and often says so before the other's end is seen.
  const bool complains = links_.size() > 1 && absl::IsAborted(reason);
  if (!complains) return GiveUp(message.rank, std::move(reason));
  if (complaint_.ok()) {
    complaint_ = std::move(reason);
    TellAfter(kCulpritWait, CulpritOverdue{});
  }
}

void SchedulerActor::On(CulpritOverdue /*message*/) { GiveUp(/*rank=*/-1, complaint_); }

void SchedulerActor::On(PlanAgain /*message*/) { wakeup_at_us_.reset(); }

void SchedulerActor::On(HealthTick /*message*/) {
  const int64_t now_us = NowUs();
  TellAfter(absl::Microseconds(config_.rank_timeout_us / 4), HealthTick{});
  if (!begun()) {
    const absl::Status overdue = gathering_->Overdue(now_us);
    if (!overdue.ok()) GiveUp(/*rank=*/-1, overdue);
    return;
  }
  // An idle step: whoever answers it is there.
  if (steps_.in_flight() == 0 && now_us - last_step_us_ >= config_.rank_timeout_us / 2) {
    Dispatch(JointSteps::Plans(homes_.size()));
  }
  const int64_t waited_us = now_us - steps_.OldestSentUs().value_or(now_us);
  std::string problem;
  const std::vector<int> missing = steps_.Missing();
  if (waited_us >= config_.rank_timeout_us) {
    problem = absl::StrCat(
        absl::StrJoin(missing, ", ",
                      [this](std::string* out, int rank) { *out += gathering_->Name(rank); }),
        " did not answer a step for ", waited_us / 1'000'000, " s");
  }
  if (waited_us >= config_.rank_lost_us) {
    return GiveUp(missing.size() == 1 ? missing.front() : -1, absl::DeadlineExceededError(problem));
  }
  SetProblem(std::move(problem));
}

void SchedulerActor::SetProblem(std::string problem) {
  if (problem.empty() == problem_.empty()) {
    problem_ = std::move(problem);
    return;
  }
  problem_ = std::move(problem);
  (void)fleet_.TellReply(ReplicaHealth{spec_.name, spec_.epoch, problem_});
}

void SchedulerActor::On(HandOver /*message*/) { handing_over_ = !links_.empty(); }

void SchedulerActor::On(DescribeReplica message) {
  v1::WorkerStatus status;
  std::vector<v1::TenantStatus> tenants;
  if (begun()) {
    for (const Home& home : homes_) {
      v1::WorkerStatus part;
      home.scheduler->Describe(part);
      AddHome(part, status);
      AddTenants(home.scheduler->DescribeTenants(), tenants);
    }
    *status.mutable_info() = info_;
    if (homes_.size() > 1) status.set_steps(steps_.steps());
  }
  status.set_worker(spec_.name);
  status.set_address(spec_.members.front().address);
  status.set_epoch(spec_.epoch);
  status.set_state(!begun()           ? v1::WorkerStatus::STATE_CONNECTING
                   : problem_.empty() ? v1::WorkerStatus::STATE_READY
                                      : v1::WorkerStatus::STATE_STUCK);
  status.set_problem(problem_);
  gathering_->Describe(NowUs(), status);
  for (v1::RankStatus& rank : *status.mutable_ranks()) {
    rank.set_steps(steps_.answered(static_cast<int>(rank.rank())));
  }
  status.set_plan_ns_total(plan_ns_total_);
  status.set_forward_us_total(forward_us_total_);
  message.reply(std::move(status), std::move(tenants));
}

void SchedulerActor::GiveUp(int rank, absl::Status reason) {
  ReplicaDown down{spec_.name, spec_.epoch, rank, std::move(reason), {}};
  for (size_t home = 0; home < homes_.size(); ++home) {
    for (SequenceRequest& sequence : homes_[home].scheduler->Evacuate()) {
      if (sequence.kept.has_value()) sequence.kept->home = static_cast<uint32_t>(home);
      down.sequences.push_back(std::move(sequence));
    }
  }
  homes_.clear();
  links_.clear();
  jobs_.clear();
  handing_over_ = false;
  (void)fleet_.TellReply(std::move(down));
  Stop(StopMode::kDrop);
}

int64_t SchedulerActor::NowUs() const { return clock().MonotonicNs() / 1000; }

}  // namespace troupe
