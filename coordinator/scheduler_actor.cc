#include "coordinator/scheduler_actor.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/log.h"
#include "base/status_util.h"

namespace troupe {

SchedulerActor::SchedulerActor(const Scheduler::Config& config, std::string worker,
                               std::string address, std::optional<v1::ShardMap> map,
                               uint64_t epoch, WorkerLinkFactory connect,
                               ActorRef<FleetMessage> fleet)
    : config_(config),
      worker_(std::move(worker)),
      address_(std::move(address)),
      map_(std::move(map)),
      epoch_(epoch),
      connect_(std::move(connect)),
      fleet_(std::move(fleet)) {}

void SchedulerActor::OnStart() {
  v1::Hello hello;
  hello.set_coordinator("troupe-coordinator");
  hello.set_epoch(epoch_);
  if (map_.has_value()) *hello.mutable_assignment()->mutable_map() = *map_;
  link_ = connect_(address_, hello, self());
}

void SchedulerActor::Handle(SchedulerMessage message) {
  std::visit([this](auto&& m) { On(std::forward<decltype(m)>(m)); }, std::move(message));
  if (scheduler_ == nullptr) {
    if (std::exchange(handing_over_, false)) GiveUp(absl::AbortedError("handed over"));
  } else if (!handing_over_) {
    PlanAndDispatch();
  } else if (scheduler_->steps_in_flight() == 0) {
    GiveUp(absl::AbortedError("handed over"));
  }
}

void SchedulerActor::PlanAndDispatch() {
  const int64_t start_ns = clock().MonotonicNs();
  while (std::optional<v1::StepPlan> plan = scheduler_->Plan(NowUs())) {
    link_->Send(*std::move(plan));
  }
  plan_ns_total_ += clock().MonotonicNs() - start_ns;

  const std::optional<int64_t> next_us = scheduler_->NextWakeup(NowUs());
  if (next_us == wakeup_at_us_) return;
  if (wakeup_at_us_.has_value()) CancelTimer(wakeup_);
  wakeup_at_us_ = next_us;
  if (!next_us.has_value()) return;
  wakeup_ = TellAfter(absl::Microseconds(std::max<int64_t>(0, *next_us - NowUs())), PlanAgain{});
}

void SchedulerActor::On(AddSequence message) {
  const uint64_t id = message.sequence.id;
  const absl::Status added = scheduler_ == nullptr
                                 ? absl::UnavailableError("the worker's session is not up")
                                 : scheduler_->Add(std::move(message.sequence));
  if (!added.ok()) {
    (void)message.job.TellReply(SequenceFailed{added});
    (void)fleet_.TellReply(SequenceEnded{id});
    return;
  }
  (void)message.job.TellReply(SequenceStarted{worker_});
  jobs_[id] = {std::move(message.job)};
}

void SchedulerActor::On(RemoveSequence message) {
  if (scheduler_ != nullptr) scheduler_->Cancel(message.sequence);
  jobs_.erase(message.sequence);
}

void SchedulerActor::On(LinkUp message) {
  if (scheduler_ != nullptr) {
    GiveUp(absl::FailedPreconditionError(
        absl::StrCat("worker ", worker_, " announced itself twice in one session")));
    return;
  }
  absl::StatusOr<ReplicaInfo> replica = ReplicaInfo::From(message.info);
  if (!replica.ok()) {
    GiveUp(Annotate(replica.status(), absl::StrCat("worker ", worker_)));
    return;
  }
  info_ = std::move(message.info);
  scheduler_ = std::make_unique<Scheduler>(config_, *std::move(replica), epoch_);
  (void)fleet_.TellReply(ReplicaUp{worker_, epoch_, info_});
}

void SchedulerActor::On(const StepDone& message) {
  if (scheduler_ == nullptr) return;
  forward_us_total_ += message.result.forward_us();
  const int64_t start_ns = clock().MonotonicNs();
  absl::StatusOr<std::vector<SequenceEvent>> events = scheduler_->Retire(message.result, NowUs());
  plan_ns_total_ += clock().MonotonicNs() - start_ns;
  if (!events.ok()) {
    GiveUp(events.status());
    return;
  }
  for (const SequenceEvent& event : *events) TellJob(event, message.result);
}

void SchedulerActor::TellJob(const SequenceEvent& event, const v1::StepResult& result) {
  const auto job = jobs_.find(event.sequence);
  if (job == jobs_.end()) return;
  if (event.has_token && !std::exchange(job->second.decoding, true)) {
    (void)fleet_.TellReply(PrefillEnded{event.sequence});
  }
  if (event.finish == FinishReason::kDamaged) {
    (void)job->second.ref.TellReply(SequenceFailed{absl::InternalError(absl::StrCat(
        "worker ", worker_, " computed no usable logits: its weights or its memory are damaged"))});
    (void)fleet_.TellReply(SequenceEnded{event.sequence});
    jobs_.erase(job);
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
  jobs_.erase(job);
  (void)fleet_.TellReply(SequenceEnded{id});
}

void SchedulerActor::On(LinkDown message) {
  GiveUp(std::move(message.status), std::move(message.worker));
}

void SchedulerActor::On(HandOver /*message*/) { handing_over_ = true; }

void SchedulerActor::On(PlanAgain) { wakeup_at_us_.reset(); }

void SchedulerActor::On(DescribeReplica message) {
  v1::WorkerStatus status;
  std::vector<v1::TenantStatus> tenants;
  status.set_worker(worker_);
  status.set_address(address_);
  status.set_epoch(epoch_);
  status.set_state(v1::WorkerStatus::STATE_CONNECTING);
  if (scheduler_ != nullptr) {
    status.set_state(v1::WorkerStatus::STATE_READY);
    scheduler_->Describe(status);
    tenants = scheduler_->DescribeTenants();
    *status.mutable_info() = info_;
  }
  status.set_plan_ns_total(plan_ns_total_);
  status.set_forward_us_total(forward_us_total_);
  message.reply(std::move(status), std::move(tenants));
}

void SchedulerActor::GiveUp(absl::Status reason, std::string lost) {
  ReplicaDown down{worker_, epoch_, std::move(reason), {}, std::move(lost)};
  if (scheduler_ != nullptr) down.sequences = scheduler_->Evacuate();
  scheduler_.reset();
  link_.reset();
  jobs_.clear();
  handing_over_ = false;
  (void)fleet_.TellReply(std::move(down));
  Stop(StopMode::kDrop);
}

int64_t SchedulerActor::NowUs() const { return clock().MonotonicNs() / 1000; }

}  // namespace troupe
