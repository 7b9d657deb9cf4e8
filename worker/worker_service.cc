#include "worker/worker_service.h"

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <deque>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "rpc/rpc_status.h"
#include "worker/shard_service.h"
#include "worker/weight_service.h"

namespace troupe {
namespace {

// Results that wait for the coordinator to read them.
constexpr size_t kMaxUnsent = 256;

}  // namespace

// One stream. Writes and the end happen one after another: `busy_` says that gRPC has one of them.
class WorkerService::SessionCall final
    : public grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionReply>,
      public SessionOutlet,
      public std::enable_shared_from_this<SessionCall> {
 public:
  SessionCall(WorkerService* service, grpc::CallbackServerContext* context)
      : service_(service), context_(context) {}

  void Start() {
    self_ = shared_from_this();
    StartRead(&request_);
  }

  void Report(v1::Loading loading) override {
    v1::SessionReply reply;
    *reply.mutable_loading() = std::move(loading);
    Write(std::move(reply));
  }

  void Contribute(std::string bytes) override {
    v1::SessionReply reply;
    reply.set_contribution(std::move(bytes));
    Write(std::move(reply));
  }

  void Greet(v1::WorkerInfo info) override {
    v1::SessionReply reply;
    *reply.mutable_info() = std::move(info);
    reply.mutable_info()->set_worker(service_->Name());
    Write(std::move(reply));
  }

  void Send(v1::StepResult result) override {
    v1::SessionReply reply;
    *reply.mutable_result() = std::move(result);
    --queued_plans_;
    Write(std::move(reply));
  }

  void End(const absl::Status& status) override {
    {
      const std::lock_guard lock(mutex_);
      if (end_.has_value()) return;
      end_ = status;
    }
    CallOff(status);
    Proceed();
  }

  // Nobody waits for the other ranks any more.
  void CallOff(const absl::Status& status) {
    if (meeting_ == nullptr) return;
    meeting_->CallOff(status.ok() ? absl::CancelledError("the session is over") : status);
  }

  // Of the assignment of Hello; null: none.
  const std::shared_ptr<SessionMeeting>& meeting() const { return meeting_; }

  // The other end is presumed dead, and would hold up a write for ever.
  void Displace(uint64_t epoch) {
    End(absl::AbortedError(absl::StrCat("a session of epoch ", epoch, " took this one's place")));
    const std::lock_guard lock(mutex_);
    if (busy_ && !finishing_) context_->TryCancel();
  }

 private:
  void Write(v1::SessionReply reply) {
    bool full = false;
    {
      const std::lock_guard lock(mutex_);
      if (end_.has_value()) return;
      full = unsent_.size() == kMaxUnsent;
      if (!full) unsent_.push_back(std::move(reply));
    }
    if (full) {
      End(absl::ResourceExhaustedError(
          absl::StrCat("the coordinator does not read: ", kMaxUnsent, " results wait for it")));
    }
    Proceed();
  }

  // Starts the next write, or the end after the last. gRPC may run reactions inside of its calls,
  // so no lock is held around them.
  void Proceed() {
    const v1::SessionReply* reply = nullptr;
    {
      const std::lock_guard lock(mutex_);
      if (busy_) return;
      if (!unsent_.empty()) {
        reply = &unsent_.front();
      } else if (end_.has_value()) {
        finishing_ = true;
      } else {
        return;
      }
      busy_ = true;
    }
    if (reply != nullptr) {
      StartWrite(reply);
    } else {
      Finish(ToGrpcStatus(*end_));
    }
  }

  void OnWriteDone(bool ok) override {
    {
      const std::lock_guard lock(mutex_);
      busy_ = false;
      unsent_.pop_front();
      if (!ok) unsent_.clear();
    }
    if (!ok) End(absl::CancelledError("the coordinator is gone"));
    Proceed();
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      Close(absl::OkStatus());
      return;
    }
    const absl::Status status = Accept();
    if (status.ok()) {
      StartRead(&request_);
    } else {
      End(status);
    }
  }

  absl::Status Accept() {
    if (request_.has_hello()) return Begin(request_.hello());
    if (request_.has_meeting() && meeting_ != nullptr) {
      return meeting_->Deliver(request_.meeting());
    }
    if (!request_.has_plan() || epoch_ == 0) {
      return absl::FailedPreconditionError(request_.has_plan() ? "found a plan before Hello"
                                                               : "found an empty request");
    }
    v1::StepPlan& plan = *request_.mutable_plan();
    if (plan.epoch() != epoch_) {
      return absl::FailedPreconditionError(absl::StrCat(
          "plan of step ", plan.step(), ": found epoch ", plan.epoch(), ", wanted ", epoch_));
    }
    if (++queued_plans_ > service_->config_.max_queued_plans) {
      return absl::FailedPreconditionError(absl::StrCat(
          "plan of step ", plan.step(), ": found ", queued_plans_.load(),
          " plans without a result, wanted at most ", service_->config_.max_queued_plans));
    }
    const int64_t now_ns = service_->clock_->MonotonicNs();
    return service_->executor_.Tell(RunPlan{epoch_, std::move(plan), now_ns});
  }

  absl::Status Begin(const v1::Hello& hello) {
    if (epoch_ != 0) return absl::FailedPreconditionError("found a second Hello");
    if (hello.epoch() == 0) return absl::FailedPreconditionError("Hello: found epoch 0");
    if (hello.has_assignment()) {
      meeting_ = std::make_shared<SessionMeeting>(std::weak_ptr<SessionOutlet>(self_));
    }
    absl::StatusOr<std::optional<v1::WorkerInfo>> info = service_->Admit(hello, self_);
    if (!info.ok()) return info.status();
    epoch_ = hello.epoch();
    if (!info->has_value()) return absl::OkStatus();
    v1::SessionReply reply;
    *reply.mutable_info() = **std::move(info);
    Write(std::move(reply));
    return absl::OkStatus();
  }

  // Ends the session after the plans before this.
  void Close(const absl::Status& status) {
    CallOff(status);
    const bool told =
        epoch_ != 0 && service_->executor_.TellReply(CloseSession{epoch_, status}).ok();
    if (!told) End(status);
  }

  void OnDone() override {
    CallOff(absl::CancelledError("stream over"));
    if (epoch_ != 0) {
      // Where the executor does not know yet that it is over. Gone: it is over anyway.
      service_->executor_.TellReply(CloseSession{epoch_, absl::CancelledError("stream over")})
          .IgnoreError();
    }
    service_->Remove(this);
    self_.reset();
  }

  WorkerService* const service_;
  grpc::CallbackServerContext* const context_;
  v1::SessionRequest request_;
  std::shared_ptr<SessionCall> self_;
  uint64_t epoch_ = 0;                       // of Hello; read and written by the reactions alone
  std::shared_ptr<SessionMeeting> meeting_;  // written by Hello's reaction, before others see it
  std::atomic<int> queued_plans_ = 0;

  std::mutex mutex_;
  // All below are guarded by mutex_, except that the front is gRPC's while `busy_`, and that `end_`
  // is never written twice.
  std::deque<v1::SessionReply> unsent_;
  std::optional<absl::Status> end_;
  bool busy_ = false;
  bool finishing_ = false;
};

WorkerService::WorkerService(const Config& config, ActorRef<ExecutorMessage> executor,
                             const Clock* clock)
    : config_(config), executor_(std::move(executor)), clock_(clock) {}

void WorkerService::Open(v1::WorkerInfo info) {
  const std::lock_guard lock(mutex_);
  info_ = std::move(info);
}

grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionReply>* WorkerService::Session(
    grpc::CallbackServerContext* context) {
  auto call = std::make_shared<SessionCall>(this, context);
  SessionCall* reactor = call.get();
  reactor->Start();
  return reactor;
}

void WorkerService::AllowShards(RankMember* member, Executor* loader, Executor* sender) {
  member_ = member;
  loader_ = loader;
  sender_ = sender;
}

grpc::ServerWriteReactor<v1::PrepareShardReply>* WorkerService::PrepareShard(
    grpc::CallbackServerContext* context, const v1::PrepareShardRequest* request) {
  if (member_ == nullptr) return v1::Worker::CallbackService::PrepareShard(context, request);
  return PrepareShardCall(*request, member_, loader_);
}

grpc::ServerWriteReactor<v1::WeightChunk>* WorkerService::ReadWeights(
    grpc::CallbackServerContext* context, const v1::ReadWeightsRequest* request) {
  if (member_ == nullptr) return v1::Worker::CallbackService::ReadWeights(context, request);
  return ReadWeightsCall(*request, member_->Served(), sender_);
}

grpc::ServerUnaryReactor* WorkerService::RetireShard(grpc::CallbackServerContext* context,
                                                     const v1::RetireShardRequest* request,
                                                     v1::RetireShardReply* /*reply*/) {
  return RetireShardCall(context, *request, executor_);
}

void WorkerService::OpenForAssignments(const std::string& worker) {
  const std::lock_guard lock(mutex_);
  info_.emplace().set_worker(worker);
  takes_assignments_ = true;
}

absl::StatusOr<std::optional<v1::WorkerInfo>> WorkerService::Admit(
    const v1::Hello& hello, const std::shared_ptr<SessionCall>& call) {
  const uint64_t epoch = hello.epoch();
  std::shared_ptr<SessionCall> displaced;
  std::optional<v1::WorkerInfo> info;
  {
    const std::lock_guard lock(mutex_);
    if (shutting_down_) return absl::UnavailableError("the worker is shutting down");
    if (!info_.has_value()) return absl::UnavailableError("the worker is starting; retry");
    if (hello.has_assignment() != takes_assignments_) {
      return absl::FailedPreconditionError(
          takes_assignments_ ? "Hello: found no assignment, wanted the rank that this worker is to "
                               "be (it was started with --sharded)"
                             : "Hello: found an assignment, but this worker has loaded the whole "
                               "model; start it with --sharded");
    }
    if (current_ != nullptr && epoch <= current_epoch_) {
      return absl::FailedPreconditionError(absl::StrCat("Hello: found epoch ", epoch,
                                                        ", wanted more than ", current_epoch_,
                                                        ", that of the session which is there"));
    }
    displaced = std::exchange(current_, call);
    current_epoch_ = epoch;
    // Under the lock, so that the executor hears of sessions in the order of their epochs.
    OpenSession open{.epoch = epoch, .outlet = call, .meeting = call->meeting()};
    if (hello.has_assignment()) open.assignment = hello.assignment();
    const absl::Status told = executor_.TellReply(std::move(open));
    if (!told.ok()) return told;
    if (!takes_assignments_) info = info_;
  }
  if (displaced != nullptr) displaced->Displace(epoch);
  return info;
}

std::string WorkerService::Name() {
  const std::lock_guard lock(mutex_);
  return info_->worker();
}

void WorkerService::Remove(const SessionCall* call) {
  std::shared_ptr<SessionCall> last;  // let go without the lock
  const std::lock_guard lock(mutex_);
  if (current_.get() == call) last = std::exchange(current_, nullptr);
}

void WorkerService::BeginShutdown() {
  const std::lock_guard lock(mutex_);
  shutting_down_ = true;
  if (current_ == nullptr) return;
  // Gone: its OnStop has ended the session.
  executor_
      .TellReply(
          CloseSession{current_epoch_, absl::UnavailableError("the worker is shutting down")})
      .IgnoreError();
}

}  // namespace troupe
