#include "coordinator/admin_service.h"

#include <grpcpp/grpcpp.h>

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "rpc/rpc_status.h"

namespace troupe {
namespace {

// One Reshard call. Keeps itself alive until gRPC is done with it; the change goes on without it.
class ReshardCall final : public grpc::ServerWriteReactor<v1::ReshardEvent>,
                          public std::enable_shared_from_this<ReshardCall> {
 public:
  void Start() { self_ = shared_from_this(); }

  // `last`: nothing follows.
  void Push(v1::ReshardEvent event, bool last) {
    {
      const std::lock_guard lock(mutex_);
      if (end_.has_value()) return;
      unsent_.push_back(std::move(event));
      if (last) end_ = absl::OkStatus();
    }
    Proceed();
  }

  void End(absl::Status status) {
    {
      const std::lock_guard lock(mutex_);
      if (end_.has_value()) return;
      end_ = std::move(status);
    }
    Proceed();
  }

 private:
  // Starts the next write, or the end after the last. gRPC may run reactions inside of its calls,
  // so no lock is held around them.
  void Proceed() {
    const v1::ReshardEvent* event = nullptr;
    {
      const std::lock_guard lock(mutex_);
      if (busy_) return;
      if (!unsent_.empty()) {
        event = &unsent_.front();
      } else if (!end_.has_value()) {
        return;
      }
      busy_ = true;
    }
    if (event != nullptr) {
      StartWrite(event);
    } else {
      Finish(ToGrpcStatus(*end_));
    }
  }

  void OnWriteDone(bool ok) override {
    {
      const std::lock_guard lock(mutex_);
      busy_ = false;
      unsent_.pop_front();
      if (!ok) {
        unsent_.clear();
        if (!end_.has_value()) end_ = absl::CancelledError("the client is gone");
      }
    }
    Proceed();
  }

  void OnDone() override { self_.reset(); }

  std::shared_ptr<ReshardCall> self_;
  std::mutex mutex_;
  // All below are guarded by mutex_, except that the front is gRPC's while `busy_`, and that `end_`
  // is never written twice.
  std::deque<v1::ReshardEvent> unsent_;
  std::optional<absl::Status> end_;
  bool busy_ = false;
};

}  // namespace

AdminService::AdminService(ActorRef<FleetMessage> fleet,
                           std::function<void(v1::ClusterStatus&)> complete)
    : fleet_(std::move(fleet)), complete_(std::move(complete)) {}

grpc::ServerUnaryReactor* AdminService::RegisterWorker(grpc::CallbackServerContext* call,
                                                       const v1::RegisterWorkerRequest* request,
                                                       v1::RegisterWorkerReply* reply) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  const absl::Status told = fleet_.Tell(troupe::RegisterWorker{
      *request, [reactor, reply](const absl::StatusOr<v1::RegisterWorkerReply>& answer) {
        if (answer.ok()) *reply = *answer;
        reactor->Finish(ToGrpcStatus(answer.status()));
      }});
  if (!told.ok()) reactor->Finish(ToGrpcStatus(told));
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::GetStatus(grpc::CallbackServerContext* call,
                                                  const v1::GetStatusRequest* /*request*/,
                                                  v1::ClusterStatus* reply) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  const absl::Status told =
      fleet_.Tell(DescribeFleet{[this, reactor, reply](v1::ClusterStatus status) {
        complete_(status);
        *reply = std::move(status);
        reactor->Finish(grpc::Status::OK);
      }});
  if (!told.ok()) reactor->Finish(ToGrpcStatus(told));
  return reactor;
}

grpc::ServerWriteReactor<v1::ReshardEvent>* AdminService::Reshard(
    grpc::CallbackServerContext* /*call*/, const v1::ReshardRequest* request) {
  auto call = std::make_shared<ReshardCall>();
  ReshardCall* reactor = call.get();
  call->Start();
  const bool apply = request->apply();
  const absl::Status told =
      fleet_.Tell(ReshardReplica{{*request, [call, apply](absl::StatusOr<v1::ReshardEvent> event) {
                                    if (!event.ok()) {
                                      call->End(event.status());
                                      return;
                                    }
                                    const bool last =
                                        event->has_outcome() || (!apply && event->has_plan());
                                    call->Push(*std::move(event), last);
                                  }}});
  if (!told.ok()) reactor->End(told);
  return reactor;
}

}  // namespace troupe
