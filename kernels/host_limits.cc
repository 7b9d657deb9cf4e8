#include "kernels/host_limits.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace troupe {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

std::string ReadAll(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// The number at the start of a file; nothing where there is none ("max", or no such file).
std::optional<int64_t> ReadNumber(const std::string& path) {
  const std::string text = ReadAll(path);
  int64_t value;
  const std::vector<std::string> words = absl::StrSplit(text, absl::ByAnyChar(" \n"));
  if (!absl::SimpleAtoi(words[0], &value)) return std::nullopt;
  return value;
}

void LimitCores(int64_t quota, int64_t period, CgroupLimits& limits) {
  if (quota <= 0 || period <= 0) return;
  const int64_t cores = std::max<int64_t>(quota / period, 1);
  limits.cores = static_cast<int>(std::min<int64_t>(cores, limits.cores));
}

void LimitMemory(std::optional<int64_t> limit, std::optional<int64_t> used, CgroupLimits& limits) {
  if (!limit.has_value()) return;
  const int64_t free_bytes = std::max<int64_t>(*limit - used.value_or(0), 0);
  limits.memory_bytes = std::min(free_bytes, limits.memory_bytes);
}

void ApplyVersion2(const std::string& folder, CgroupLimits& limits) {
  const std::vector<std::string> quota =
      absl::StrSplit(ReadAll(folder + "/cpu.max"), absl::ByAnyChar(" \n"));
  int64_t quota_us = 0;
  int64_t period_us = 0;
  if (quota.size() >= 2 && absl::SimpleAtoi(quota[0], &quota_us) &&
      absl::SimpleAtoi(quota[1], &period_us)) {
    LimitCores(quota_us, period_us, limits);
  }
  LimitMemory(ReadNumber(folder + "/memory.max"), ReadNumber(folder + "/memory.current"), limits);
}

void ApplyVersion1(const std::string& root, absl::string_view controllers, const std::string& path,
                   CgroupLimits& limits) {
  for (absl::string_view controller : absl::StrSplit(controllers, ',')) {
    const std::string folder = absl::StrCat(root, "/", controller, path);
    if (controller == "cpu") {
      LimitCores(ReadNumber(folder + "/cpu.cfs_quota_us").value_or(-1),
                 ReadNumber(folder + "/cpu.cfs_period_us").value_or(0), limits);
    } else if (controller == "memory") {
      LimitMemory(ReadNumber(folder + "/memory.limit_in_bytes"),
                  ReadNumber(folder + "/memory.usage_in_bytes"), limits);
    }
  }
}

int64_t MachineMemoryBytes() {
  for (absl::string_view line : absl::StrSplit(ReadAll("/proc/meminfo"), '\n')) {
    if (!absl::ConsumePrefix(&line, "MemAvailable:") || !absl::ConsumeSuffix(&line, "kB")) continue;
    int64_t kibibytes;
    if (absl::SimpleAtoi(line, &kibibytes)) return kibibytes * 1024;
  }
  return kUnlimited;
}

int AffinityCores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(CPU_COUNT(&set), 1);
  return std::max(static_cast<int>(std::thread::hardware_concurrency()), 1);
}

CgroupLimits OwnLimits() {
  return ReadCgroupLimits("/sys/fs/cgroup", ReadAll("/proc/self/cgroup"));
}

}  // namespace

CgroupLimits ReadCgroupLimits(const std::string& root, const std::string& membership) {
  CgroupLimits limits{std::numeric_limits<int>::max(), kUnlimited};
  for (absl::string_view line : absl::StrSplit(membership, '\n')) {
    const std::vector<std::string> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    std::string path = fields[2] == "/" ? "" : fields[2];
    while (true) {
      if (fields[1].empty()) {
        ApplyVersion2(root + path, limits);
      } else {
        ApplyVersion1(root, fields[1], path, limits);
      }
      if (path.empty()) break;
      path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
    }
  }
  return limits;
}

int AvailableCores() { return std::min(AffinityCores(), OwnLimits().cores); }

int64_t AvailableMemoryBytes() { return std::min(MachineMemoryBytes(), OwnLimits().memory_bytes); }

}  // namespace troupe
