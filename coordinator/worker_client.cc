#include "coordinator/worker_client.h"

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_util.h"
#include "rpc/rpc_status.h"
#include "troupe/v1/worker.grpc.pb.h"

namespace troupe {
namespace {

std::shared_ptr<grpc::Channel> Dial(const std::string& address) {
  grpc::ChannelArguments arguments;
  // A plan may carry a prompt of a million tokens.
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  // A worker whose machine is gone shows within seconds.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 3000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // Its own connection: a session that ends must not leave a broken one to the next.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

class Session;

// Destroys sessions, on threads that are not gRPC's: when the last reference to a channel goes on a
// callback thread, gRPC joins that thread with itself. Outlives all of them; thread-safe.
class SessionReaper {
 public:
  // Waits until every session is done.
  ~SessionReaper() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return ended_.size() == unfreed_; });
  }

  void Begin() {
    std::lock_guard lock(mutex_);
    ++unfreed_;
    // The caller is not gRPC: a good time to free the ones that have ended.
    unfreed_ -= ended_.size();
    ended_.clear();
  }

  void End(std::shared_ptr<Session> session) {
    std::lock_guard lock(mutex_);
    ended_.push_back(std::move(session));
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t unfreed_ = 0;                           // sessions; guarded by mutex_
  std::vector<std::shared_ptr<Session>> ended_;  // guarded by mutex_
};

// The stream. Keeps itself alive until gRPC is done with it.
class Session final : public grpc::ClientBidiReactor<v1::SessionRequest, v1::SessionReply>,
                      public std::enable_shared_from_this<Session> {
 public:
  Session(std::string address, int rank, ActorRef<SchedulerMessage> owner, SessionReaper* reaper)
      : address_(std::move(address)),
        rank_(rank),
        reaper_(reaper),
        owner_(std::move(owner)),
        stub_(v1::Worker::NewStub(Dial(address_))) {}

  void Start(const v1::Hello& hello) {
    self_ = shared_from_this();
    stub_->async()->Session(&context_, this);
    // Writes start outside of the reactions: gRPC must not end the call between two of them.
    AddHold();
    StartRead(&reply_);
    StartCall();
    v1::SessionRequest request;
    *request.mutable_hello() = hello;
    Write(std::move(request));
  }

  void Write(v1::SessionRequest request) {
    const v1::SessionRequest* first;
    {
      std::lock_guard lock(mutex_);
      if (ended_) return;
      unsent_.push_back(std::move(request));
      if (std::exchange(writing_, true)) return;
      first = &unsent_.front();
    }
    StartWrite(first);
  }

  void Close() {
    context_.TryCancel();
    EndWrites();
  }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) {
      EndWrites();
      return;
    }
    switch (reply_.message_case()) {
      case v1::SessionReply::kInfo:
        (void)owner_.TellReply(LinkUp{rank_, std::move(*reply_.mutable_info())});
        break;
      case v1::SessionReply::kLoading:
        (void)owner_.TellReply(RankLoading{rank_, std::move(*reply_.mutable_loading())});
        break;
      case v1::SessionReply::kContribution:
        (void)owner_.TellReply(RankContribution{rank_, std::move(*reply_.mutable_contribution())});
        break;
      default:
        (void)owner_.TellReply(StepDone{rank_, std::move(*reply_.mutable_result())});
    }
    StartRead(&reply_);
  }

  void OnWriteDone(bool ok) override {
    const v1::SessionRequest* next = nullptr;
    bool release;
    {
      std::lock_guard lock(mutex_);
      unsent_.pop_front();
      if (!ok) ended_ = true;
      if (ended_) unsent_.clear();
      if (!unsent_.empty()) next = &unsent_.front();
      writing_ = next != nullptr;
      release = ended_ && !std::exchange(released_, true);
    }
    if (release) {
      RemoveHold();
    } else if (next != nullptr) {
      StartWrite(next);
    }
  }

  void OnDone(const grpc::Status& status) override {
    absl::Status reason = status.ok() ? absl::UnavailableError("the worker ended the session")
                                      : FromGrpcStatus(status);
    (void)owner_.TellReply(
        LinkDown{rank_, Annotate(reason, absl::StrCat("session with ", address_))});
    reaper_->End(std::move(self_));
  }

  // No more writes; lets gRPC end the call once the one under way is done.
  void EndWrites() {
    {
      std::lock_guard lock(mutex_);
      ended_ = true;
      if (writing_ || std::exchange(released_, true)) return;
    }
    RemoveHold();
  }

  const std::string address_;
  const int rank_;
  SessionReaper* const reaper_;
  const ActorRef<SchedulerMessage> owner_;
  const std::unique_ptr<v1::Worker::Stub> stub_;
  grpc::ClientContext context_;
  v1::SessionReply reply_;
  std::shared_ptr<Session> self_;

  std::mutex mutex_;
  // All below are guarded by mutex_, except that the front is gRPC's while `writing_`.
  std::deque<v1::SessionRequest> unsent_;
  bool writing_ = false;
  bool ended_ = false;
  bool released_ = false;  // the hold
};

class GrpcWorkerLink final : public WorkerLink {
 public:
  GrpcWorkerLink(const std::string& address, const v1::Hello& hello,
                 ActorRef<SchedulerMessage> owner, std::shared_ptr<SessionReaper> reaper)
      : reaper_(std::move(reaper)) {
    reaper_->Begin();
    session_ = std::make_shared<Session>(address, static_cast<int>(hello.assignment().rank()),
                                         std::move(owner), reaper_.get());
    session_->Start(hello);
  }
  ~GrpcWorkerLink() override { session_->Close(); }

  void Send(v1::StepPlan plan) override {
    v1::SessionRequest request;
    *request.mutable_plan() = std::move(plan);
    session_->Write(std::move(request));
  }
  void Send(v1::Meeting meeting) override {
    v1::SessionRequest request;
    *request.mutable_meeting() = std::move(meeting);
    session_->Write(std::move(request));
  }

 private:
  const std::shared_ptr<SessionReaper> reaper_;  // outlives the session
  std::shared_ptr<Session> session_;
};

}  // namespace

WorkerLinkFactory GrpcWorkerLinks() {
  return [reaper = std::make_shared<SessionReaper>()](
             const std::string& address, const v1::Hello& hello, ActorRef<SchedulerMessage> owner) {
    return std::make_unique<GrpcWorkerLink>(address, hello, std::move(owner), reaper);
  };
}

}  // namespace troupe
