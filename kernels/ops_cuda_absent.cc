// Stands in for kernels/ops_cuda.cu in builds without a CUDA compiler.
#include "absl/status/status.h"
#include "kernels/ops.h"

namespace troupe {

absl::StatusOr<std::unique_ptr<Ops>> MakeCudaOps(const CudaOpsOptions& /*options*/) {
  return absl::FailedPreconditionError(
      "CUDA: this build has none; scripts/install-cuda, then configure anew");
}

}  // namespace troupe
