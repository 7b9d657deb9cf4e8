// The one place where a device's errors become a Status.
//
// Thread model: the Ops' caller. Ownership: plain value.
// Invariant: the first error stays. A device that has failed answers every later call with an
// error, so the rest would only hide what came first.
#ifndef TROUPE_KERNELS_CUDA_ERRORS_H_
#define TROUPE_KERNELS_CUDA_ERRORS_H_

#include "absl/status/status.h"

namespace troupe {

class CudaErrors {
 public:
  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }

  void Note(const absl::Status& status) { status_.Update(status); }

 private:
  absl::Status status_;
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_ERRORS_H_
