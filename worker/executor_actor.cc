#include "worker/executor_actor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/log.h"
#include "base/status_util.h"

namespace troupe {

ExecutorActor::ExecutorActor(const BlockTransfers::Config& transfers, Rank* rank,
                             CacheClient* cache)
    : config_(transfers), rank_(rank), cache_(cache) {}

void ExecutorActor::OnStart() {
  engine_.emplace(rank_, &clock());
  transfers_.emplace(config_, rank_->pages.get(), cache_, rank_->identity, &clock());
}

void ExecutorActor::OnStop(const absl::Status& /*reason*/) {
  EndSession(absl::UnavailableError("the worker has stopped"));
}

void ExecutorActor::Handle(ExecutorMessage message) {
  std::visit([this]<class M>(M&& m) { On(std::forward<M>(m)); }, std::move(message));
}

void ExecutorActor::On(OpenSession message) {
  EndSession(absl::AbortedError("another session took this one's place"));
  transfers_->Reset(message.epoch);
  session_ = Session{.epoch = message.epoch, .outlet = std::move(message.outlet)};
  LOG(INFO) << "session begins" << Field("epoch", message.epoch);
}

void ExecutorActor::On(const RunPlan& message) {
  if (!session_.has_value() || session_->epoch != message.epoch) return;
  const absl::Status status = Launch(message);
  if (status.ok()) return;
  const absl::Status finished = FinishAll();
  // A device that has failed stays so for as long as this process lives.
  CHECK_OK(rank_->ops->status()) << "the device has failed; a new worker may use it again";
  CHECK_OK(finished);
  // Whatever was wrong with the plan: what the coordinator has to do is to start anew.
  EndSession(absl::FailedPreconditionError(
      absl::StrCat("plan of step ", message.plan.step(), ": ", status.message())));
}

absl::Status ExecutorActor::Launch(const RunPlan& message) {
  const v1::StepPlan& plan = message.plan;
  if (plan.step() <= session_->last_step) {
    return absl::FailedPreconditionError(
        absl::StrCat("step: found ", plan.step(), ", wanted more than ", session_->last_step));
  }
  session_->last_step = plan.step();
  if (under_way_.size() >= StepEngine::kMostLaunched) TROUPE_RETURN_IF_ERROR(FinishAll());
  v1::StepResult result;
  result.set_epoch(message.epoch);
  result.set_step(plan.step());
  result.set_queue_us((clock().MonotonicNs() - message.arrived_ns) / 1000);

  TROUPE_RETURN_IF_ERROR(engine_->Prepare(plan));
  TROUPE_RETURN_IF_ERROR(transfers_->StartLoads(plan, self()));
  TROUPE_ASSIGN_OR_RETURN(StepEngine::Launched launched, engine_->Launch(plan));
  TROUPE_RETURN_IF_ERROR(transfers_->StartStores(plan, self()));
  const bool on_host = launched.on_host();
  under_way_.push_back({std::move(launched), std::move(result)});
  const auto tell = [self = self(), epoch = message.epoch, step = plan.step()] {
    // Refused where the actor has stopped, which needs no answer.
    (void)self.TellReply(StepEnded{epoch, step});
  };
  if (on_host || !rank_->ops->WhenDone(tell)) return FinishAll();
  return absl::OkStatus();
}

absl::Status ExecutorActor::FinishOldest() {
  UnderWay step = std::move(under_way_.front());
  under_way_.pop_front();
  TROUPE_RETURN_IF_ERROR(engine_->Finish(step.launched, step.result));
  transfers_->Report(step.result);
  session_->outlet->Send(std::move(step.result));
  return absl::OkStatus();
}

absl::Status ExecutorActor::FinishAll() {
  if (under_way_.empty()) return absl::OkStatus();
  rank_->ops->Synchronize();
  while (!under_way_.empty()) TROUPE_RETURN_IF_ERROR(FinishOldest());
  return absl::OkStatus();
}

void ExecutorActor::On(const StepEnded& message) {
  // It may have been finished before this came.
  if (!session_.has_value() || session_->epoch != message.epoch || under_way_.empty() ||
      under_way_.front().result.step() != message.step) {
    return;
  }
  CHECK_OK(FinishOldest()) << "the device has failed; a new worker may use it again";
}

void ExecutorActor::On(const CloseSession& message) {
  if (!session_.has_value() || session_->epoch != message.epoch) return;
  CHECK_OK(FinishAll()) << "the device has failed; a new worker may use it again";
  EndSession(message.status);
}

void ExecutorActor::On(LoadEnded message) { transfers_->End(std::move(message)); }

void ExecutorActor::On(const StoreEnded& message) { transfers_->End(message); }

void ExecutorActor::EndSession(const absl::Status& status) {
  if (!session_.has_value()) return;
  LOG(INFO) << "session ends" << Field("epoch", session_->epoch) << Field("status", status)
            << Field("sequences", engine_->live_sequences());
  under_way_.clear();
  engine_->Reset();
  transfers_->Reset(/*epoch=*/0);
  std::exchange(session_, std::nullopt)->outlet->End(status);
}

}  // namespace troupe
