// Zeroed, aligned memory of the host, on huge pages where it is large.
#ifndef TROUPE_KERNELS_HOST_MEMORY_H_
#define TROUPE_KERNELS_HOST_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

namespace troupe {

// One cache line, and the widest vector.
inline constexpr int64_t kHostAlignment = 64;

// ResourceExhausted, with both numbers, when the machine (or this process's cgroup) has not that
// much memory free: allocating would succeed, and touching the memory would kill the process.
absl::StatusOr<std::shared_ptr<std::byte>> AllocateHostMemory(int64_t bytes);

}  // namespace troupe

#endif  // TROUPE_KERNELS_HOST_MEMORY_H_
