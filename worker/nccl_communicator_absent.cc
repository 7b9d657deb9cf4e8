#include "worker/nccl_communicator.h"

namespace troupe {

absl::StatusOr<std::unique_ptr<Communicator>> MakeNcclCommunicator(const NcclOptions& /*options*/,
                                                                   Meeting& /*meeting*/,
                                                                   Ops* /*ops*/) {
  return absl::FailedPreconditionError("this build has no NCCL; scripts/install-cuda fetches it");
}

}  // namespace troupe
