// What all Ops that compute in the caller's own memory have in common: nothing is copied that need
// not be.
#ifndef TROUPE_KERNELS_HOST_OPS_H_
#define TROUPE_KERNELS_HOST_OPS_H_

#include <cstring>

#include "kernels/ops.h"

namespace troupe {

class HostOps : public Ops {
 public:
  void Upload(void* to, const void* from, int64_t bytes) final {
    if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
  }
  void Clear(void* to, int64_t bytes) final {
    if (bytes > 0) std::memset(to, 0, static_cast<size_t>(bytes));
  }
  void BeginStep() final {}
  const void* Stage(const void* from, int64_t /*bytes*/) final { return from; }
  void* Fetch(void* from, int64_t /*bytes*/) final { return from; }
  void Synchronize() final {}
  absl::Status status() const final { return absl::OkStatus(); }
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_HOST_OPS_H_
