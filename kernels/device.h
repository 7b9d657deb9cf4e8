// From the name of a device, as people write it, to its operations.
#ifndef TROUPE_KERNELS_DEVICE_H_
#define TROUPE_KERNELS_DEVICE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/ops.h"

namespace troupe {

struct DeviceOptions {
  int threads = 0;  // on a CPU, see CpuOpsOptions
};

// `device`: "cpu", "cuda" (the first GPU) or "cuda:N". InvalidArgument for any other; otherwise the
// errors of what makes the operations.
absl::StatusOr<std::unique_ptr<Ops>> MakeOps(absl::string_view device,
                                             const DeviceOptions& options);

}  // namespace troupe

#endif  // TROUPE_KERNELS_DEVICE_H_
