// What this process may use of the machine: cores and memory, cgroup limits included.
#ifndef TROUPE_KERNELS_HOST_LIMITS_H_
#define TROUPE_KERNELS_HOST_LIMITS_H_

#include <cstdint>
#include <string>

namespace troupe {

// Cores by affinity mask, or fewer by cgroup CPU quota (whole cores, at least 1).
int AvailableCores();

// Bytes that can be had without swapping, or fewer by cgroup memory limit.
int64_t AvailableMemoryBytes();

// The same limits of the cgroup tree mounted at `root`, for the process whose /proc/PID/cgroup
// holds `membership`; the largest number of their type where there is no limit. Versions 1 and 2; a
// limit of any ancestor counts.
struct CgroupLimits {
  int cores;
  int64_t memory_bytes;
};
CgroupLimits ReadCgroupLimits(const std::string& root, const std::string& membership);

}  // namespace troupe

#endif  // TROUPE_KERNELS_HOST_LIMITS_H_
