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
  absl::StatusOr<v1::StepResult> result = Run(message);
  if (result.ok()) {
    session_->outlet->Send(*std::move(result));
    return;
  }
  // A device that has failed stays so for as long as this process lives.
  CHECK_OK(rank_->ops->status()) << "the device has failed; a new worker may use it again";
  // Whatever was wrong with the plan: what the coordinator has to do is to start anew.
  EndSession(absl::FailedPreconditionError(
      absl::StrCat("plan of step ", message.plan.step(), ": ", result.status().message())));
}

absl::StatusOr<v1::StepResult> ExecutorActor::Run(const RunPlan& message) {
  const v1::StepPlan& plan = message.plan;
  if (plan.step() <= session_->last_step) {
    return absl::FailedPreconditionError(
        absl::StrCat("step: found ", plan.step(), ", wanted more than ", session_->last_step));
  }
  session_->last_step = plan.step();
  v1::StepResult result;
  result.set_epoch(message.epoch);
  result.set_step(plan.step());
  result.set_queue_us((clock().MonotonicNs() - message.arrived_ns) / 1000);

  TROUPE_RETURN_IF_ERROR(engine_->Prepare(plan));
  TROUPE_RETURN_IF_ERROR(transfers_->StartLoads(plan, self()));
  TROUPE_RETURN_IF_ERROR(engine_->Compute(plan, result));
  TROUPE_RETURN_IF_ERROR(transfers_->StartStores(plan, self()));
  transfers_->Report(result);
  return result;
}

void ExecutorActor::On(const CloseSession& message) {
  if (session_.has_value() && session_->epoch == message.epoch) EndSession(message.status);
}

void ExecutorActor::On(LoadEnded message) { transfers_->End(std::move(message)); }

void ExecutorActor::On(const StoreEnded& message) { transfers_->End(message); }

void ExecutorActor::EndSession(const absl::Status& status) {
  if (!session_.has_value()) return;
  LOG(INFO) << "session ends" << Field("epoch", session_->epoch) << Field("status", status)
            << Field("sequences", engine_->live_sequences());
  engine_->Reset();
  transfers_->Reset(/*epoch=*/0);
  std::exchange(session_, std::nullopt)->outlet->End(status);
}

}  // namespace troupe
