// Worker.PrepareShard and Worker.RetireShard: weights of another map beside those that serve.
//
// Thread model: thread-safe, as gRPC's callback API wants it; loading runs on `loader`, one call
// after the other. Ownership: calls keep themselves alive until gRPC is done with them; member and
// loader outlive them.
#ifndef TROUPE_WORKER_SHARD_SERVICE_H_
#define TROUPE_WORKER_SHARD_SERVICE_H_

#include "base/actor.h"
#include "base/executor.h"
#include "troupe/v1/worker.grpc.pb.h"
#include "worker/messages.h"
#include "worker/rank_member.h"

namespace troupe {

grpc::ServerWriteReactor<v1::PrepareShardReply>* PrepareShardCall(
    const v1::PrepareShardRequest& request, RankMember* member, Executor* loader);

grpc::ServerUnaryReactor* RetireShardCall(grpc::CallbackServerContext* context,
                                          const v1::RetireShardRequest& request,
                                          const ActorRef<ExecutorMessage>& executor);

}  // namespace troupe

#endif  // TROUPE_WORKER_SHARD_SERVICE_H_
