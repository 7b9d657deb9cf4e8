// Worker sessions over gRPC.
#ifndef TROUPE_COORDINATOR_WORKER_CLIENT_H_
#define TROUPE_COORDINATOR_WORKER_CLIENT_H_

#include "coordinator/worker_link.h"

namespace troupe {

// A factory of links that dial the worker's gRPC service. A link's stream ends soon after the link
// is destroyed. Thread-safe.
WorkerLinkFactory GrpcWorkerLinks();

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_WORKER_CLIENT_H_
