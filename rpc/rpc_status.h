// absl::Status and grpc::Status are the same codes; these carry one over into the other. Details
// beyond code and message are dropped. Pure functions.

#ifndef TROUPE_RPC_RPC_STATUS_H_
#define TROUPE_RPC_RPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace troupe {

grpc::Status ToGrpcStatus(const absl::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace troupe

#endif  // TROUPE_RPC_RPC_STATUS_H_
