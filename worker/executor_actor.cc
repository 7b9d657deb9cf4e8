#include "worker/executor_actor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/check.h"
#include "base/log.h"
#include "base/status_util.h"

namespace troupe {
namespace {

constexpr char kDeviceFailed[] = "the device has failed; a new worker may use it again";

// Of a stream of reports, the first of each kind and then one a second.
Rank::Progress EverySecond(Rank::Progress report) {
  struct State {
    std::string what;
    absl::Time next = absl::InfinitePast();
  };
  return [report = std::move(report), state = std::make_shared<State>()](
             absl::string_view what, int64_t done, int64_t total) {
    const absl::Time now = absl::Now();
    if (what == state->what && now < state->next) return;
    state->what = std::string(what);
    state->next = now + absl::Seconds(1);
    report(what, done, total);
  };
}

}  // namespace

ExecutorActor::ExecutorActor(const BlockTransfers::Config& transfers, RankMember* member,
                             CacheClient* cache)
    : config_(transfers), member_(member), cache_(cache) {}

void ExecutorActor::OnStart() {
  if (member_->rank() != nullptr) TakeRank();
}

void ExecutorActor::TakeRank() {
  Rank& rank = *member_->rank();
  engine_.emplace(&rank, &clock());
  transfers_.emplace(config_, rank.pages.get(), cache_, rank.cache_identity, &clock());
  mover_.emplace(rank.pages.get(), rank.host_pages.get(), rank.copies.get(), &clock());
}

void ExecutorActor::LeaveRank() {
  engine_.reset();
  transfers_.reset();
  mover_.reset();
}

void ExecutorActor::OnStop(const absl::Status& /*reason*/) {
  EndSession(absl::UnavailableError("the worker has stopped"));
}

void ExecutorActor::Handle(ExecutorMessage message) {
  std::visit([this]<class M>(M&& m) { On(std::forward<M>(m)); }, std::move(message));
}

void ExecutorActor::On(const OpenSession& message) {
  EndSession(absl::AbortedError("another session took this one's place"));
  LOG(INFO) << "session begins" << Field("epoch", message.epoch);
  session_ = Session{.epoch = message.epoch, .outlet = message.outlet};
  if (message.assignment.has_value()) {
    const absl::Status become = Become(message);
    if (!become.ok()) return EndSession(become);
  }
  transfers_->Reset(message.epoch);
  mover_->Reset(message.epoch);
  if (message.assignment.has_value()) session_->outlet->Greet(member_->Describe());
}

absl::Status ExecutorActor::Become(const OpenSession& message) {
  LeaveRank();
  const auto report = [&](absl::string_view what, int64_t done, int64_t total) {
    v1::Loading loading;
    loading.set_what(std::string(what));
    loading.set_bytes_done(done);
    loading.set_bytes_total(total);
    session_->outlet->Report(std::move(loading));
  };
  TROUPE_RETURN_IF_ERROR(
      member_->Become(*message.assignment, message.meeting, EverySecond(report)));
  TakeRank();
  return absl::OkStatus();
}

void ExecutorActor::On(const RunPlan& message) {
  if (!session_.has_value() || session_->epoch != message.epoch) return;
  const absl::Status status = Launch(message);
  if (status.ok()) return;
  const absl::Status finished = FinishAll();
  if (!finished.ok() || !member_->rank()->ops->status().ok() || !member_->links_status().ok()) {
    return EndForFailure(finished);
  }
  // Whatever was wrong with the plan: what the coordinator has to do is to start anew.
  EndSession(absl::FailedPreconditionError(
      absl::StrCat("plan of step ", message.plan.step(), ": ", status.message())));
}

absl::Status ExecutorActor::Launch(const RunPlan& message) {
  const v1::StepPlan& plan = message.plan;
  if (session_->last_step == 0) member_->OnStateWritten(message.epoch);
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

  TROUPE_RETURN_IF_ERROR(mover_->Start(plan, self()));
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
  if (on_host || !member_->rank()->ops->WhenDone(tell)) return FinishAll();
  return absl::OkStatus();
}

absl::Status ExecutorActor::FinishOldest() {
  UnderWay step = std::move(under_way_.front());
  under_way_.pop_front();
  TROUPE_RETURN_IF_ERROR(engine_->Finish(step.launched, step.result));
  transfers_->Report(step.result);
  mover_->Report(step.result);
  session_->outlet->Send(std::move(step.result));
  return absl::OkStatus();
}

absl::Status ExecutorActor::FinishAll() {
  if (under_way_.empty()) return absl::OkStatus();
  member_->rank()->ops->Synchronize();
  while (!under_way_.empty()) TROUPE_RETURN_IF_ERROR(FinishOldest());
  return absl::OkStatus();
}

void ExecutorActor::On(const StepEnded& message) {
  // It may have been finished before this came.
  if (!session_.has_value() || session_->epoch != message.epoch || under_way_.empty() ||
      under_way_.front().result.step() != message.step) {
    return;
  }
  if (const absl::Status finished = FinishOldest(); !finished.ok()) EndForFailure(finished);
}

void ExecutorActor::On(const CloseSession& message) {
  if (!session_.has_value() || session_->epoch != message.epoch) return;
  if (!FinishAll().ok()) CHECK_OK(member_->rank()->ops->status()) << kDeviceFailed;
  EndSession(message.status);
}

void ExecutorActor::On(RetireMaps message) {
  // A rank that serves is not of another map: its session was begun after the decision.
  if (!session_.has_value() && member_->takes_assignment()) {
    if (member_->MapEpochs() != std::vector<uint64_t>{message.keep_epoch}) LeaveRank();
    if (!member_->Retire(message.keep_epoch) && member_->rank() != nullptr && !engine_) TakeRank();
  } else {
    member_->RetirePrepared(message.keep_epoch);
  }
  message.done();
}

void ExecutorActor::On(const FillsEnded& message) {
  if (mover_.has_value()) mover_->End(message);
}

void ExecutorActor::On(LoadEnded message) {
  if (transfers_.has_value()) transfers_->End(std::move(message));
}

void ExecutorActor::On(const StoreEnded& message) {
  if (transfers_.has_value()) transfers_->End(message);
}

void ExecutorActor::EndForFailure(const absl::Status& failure) {
  // A device that has failed stays so for as long as this process lives.
  CHECK_OK(member_->rank()->ops->status()) << kDeviceFailed;
  const absl::Status links = member_->links_status();
  CHECK(!links.ok()) << failure;
  // Another rank's fault, which ABORTED says: this one stays what it is for the next session.
  EndSession(absl::AbortedError(links.message()));
}

void ExecutorActor::EndSession(const absl::Status& status) {
  if (!session_.has_value()) return;
  LOG(INFO) << "session ends" << Field("epoch", session_->epoch) << Field("status", status)
            << Field("sequences", engine_.has_value() ? engine_->live_sequences() : 0);
  // What follows may take the pages that the device is at.
  if (!under_way_.empty()) member_->rank()->ops->Synchronize();
  under_way_.clear();
  if (engine_.has_value()) engine_->Reset();
  if (transfers_.has_value()) transfers_->Reset(/*epoch=*/0);
  if (mover_.has_value()) mover_->Reset(/*epoch=*/0);
  member_->Leave();
  std::exchange(session_, std::nullopt)->outlet->End(status);
}

}  // namespace troupe
