#include "coordinator/admin_service.h"

#include <grpcpp/grpcpp.h>

#include <utility>

#include "rpc/rpc_status.h"

namespace troupe {

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

}  // namespace troupe
