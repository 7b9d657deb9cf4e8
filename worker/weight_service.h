// Worker.ReadWeights: bytes of this rank's checkpoint, for ranks that prepare a shard.
//
// Thread model: thread-safe, as gRPC's callback API wants it; disks block `sender` alone, which has
// a chunk of every call at a time. Ownership: calls keep themselves alive until gRPC is done with
// them; sender outlives them.
#ifndef TROUPE_WORKER_WEIGHT_SERVICE_H_
#define TROUPE_WORKER_WEIGHT_SERVICE_H_

#include <memory>

#include "base/executor.h"
#include "model/checkpoint.h"
#include "troupe/v1/worker.grpc.pb.h"

namespace troupe {

// A checkpoint that is there to be read, and what it is.
struct ServedCheckpoint {
  std::shared_ptr<const Checkpoint> files;
  ModelIdentity identity;
};

// `served` without files: there is nothing to read here.
grpc::ServerWriteReactor<v1::WeightChunk>* ReadWeightsCall(const v1::ReadWeightsRequest& request,
                                                           ServedCheckpoint served,
                                                           Executor* sender);

}  // namespace troupe

#endif  // TROUPE_WORKER_WEIGHT_SERVICE_H_
