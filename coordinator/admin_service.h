// Operation of the cluster: Admin.RegisterWorker, GetStatus and Reshard.
//
// Thread model: thread-safe, as gRPC's callback API wants it. Asks the fleet by message.
#ifndef TROUPE_COORDINATOR_ADMIN_SERVICE_H_
#define TROUPE_COORDINATOR_ADMIN_SERVICE_H_

#include <functional>

#include "base/actor.h"
#include "coordinator/messages.h"
#include "troupe/v1/admin.grpc.pb.h"

namespace troupe {

class AdminService final : public v1::Admin::CallbackService {
 public:
  // `complete` adds to a status what the fleet does not know.
  AdminService(ActorRef<FleetMessage> fleet, std::function<void(v1::ClusterStatus&)> complete);

  grpc::ServerUnaryReactor* RegisterWorker(grpc::CallbackServerContext* call,
                                           const v1::RegisterWorkerRequest* request,
                                           v1::RegisterWorkerReply* reply) override;
  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* call,
                                      const v1::GetStatusRequest* request,
                                      v1::ClusterStatus* reply) override;

  grpc::ServerWriteReactor<v1::ReshardEvent>* Reshard(grpc::CallbackServerContext* call,
                                                      const v1::ReshardRequest* request) override;

 private:
  const ActorRef<FleetMessage> fleet_;
  const std::function<void(v1::ClusterStatus&)> complete_;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_ADMIN_SERVICE_H_
