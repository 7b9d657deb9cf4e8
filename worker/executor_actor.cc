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
}

void ExecutorActor::OnStop(const absl::Status& /*reason*/) {
  EndSession(absl::UnavailableError("the worker has stopped"));
}

void ExecutorActor::Handle(ExecutorMessage message) {
  std::visit([this]<class M>(M&& m) { On(std::forward<M>(m)); }, std::move(message));
}

void ExecutorActor::On(OpenSession message) {
  EndSession(absl::AbortedError("another session took this one's place"));
  LOG(INFO) << "session begins" << Field("epoch", message.epoch);
  session_ = Session{.epoch = message.epoch, .outlet = message.outlet};
  if (message.assignment.has_value()) {
    const absl::Status become = Become(message);
    if (!become.ok()) return EndSession(become);
  }
  transfers_->Reset(message.epoch);
  if (message.assignment.has_value()) session_->outlet->Greet(member_->Describe());
}

absl::Status ExecutorActor::Become(const OpenSession& message) {
  // They lie on the rank, which may be replaced.
  engine_.reset();
  transfers_.reset();
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
  absl::StatusOr<v1::StepResult> result = Run(message);
  if (result.ok()) {
    session_->outlet->Send(*std::move(result));
    return;
  }
  // A device that has failed stays so for as long as this process lives.
  CHECK_OK(member_->rank()->ops->status())
      << "the device has failed; a new worker may use it again";
  // Another rank's fault, which ABORTED says: this one stays what it is for the next session.
  if (absl::Status links = member_->links_status(); !links.ok()) {
    return EndSession(absl::AbortedError(links.message()));
  }
  // Whatever was wrong with the plan: what the coordinator has to do is to start anew.
  EndSession(absl::FailedPreconditionError(
      absl::StrCat("plan of step ", message.plan.step(), ": ", result.status().message())));
}

absl::StatusOr<v1::StepResult> ExecutorActor::Run(const RunPlan& message) {
  const v1::StepPlan& plan = message.plan;
  if (session_->last_step == 0) member_->OnStateWritten(message.epoch);
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

void ExecutorActor::On(RetireMaps message) {
  // A rank that serves is not of another map: its session was begun after the decision.
  if (!session_.has_value() && member_->takes_assignment()) {
    if (member_->MapEpochs() != std::vector<uint64_t>{message.keep_epoch}) {
      // They lie on the rank, which may go.
      engine_.reset();
      transfers_.reset();
    }
    if (!member_->Retire(message.keep_epoch) && member_->rank() != nullptr && !engine_) TakeRank();
  } else {
    member_->RetirePrepared(message.keep_epoch);
  }
  message.done();
}

void ExecutorActor::On(LoadEnded message) {
  if (transfers_.has_value()) transfers_->End(std::move(message));
}

void ExecutorActor::On(const StoreEnded& message) {
  if (transfers_.has_value()) transfers_->End(message);
}

void ExecutorActor::EndSession(const absl::Status& status) {
  if (!session_.has_value()) return;
  LOG(INFO) << "session ends" << Field("epoch", session_->epoch) << Field("status", status)
            << Field("sequences", engine_.has_value() ? engine_->live_sequences() : 0);
  if (engine_.has_value()) engine_->Reset();
  if (transfers_.has_value()) transfers_->Reset(/*epoch=*/0);
  member_->Leave();
  std::exchange(session_, std::nullopt)->outlet->End(status);
}

}  // namespace troupe
