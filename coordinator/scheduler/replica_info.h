// What the scheduler must know of one replica: the shape of its memory and the limits of its steps.
// A checked, plain copy of the worker's WorkerInfo. Values; any thread.
#ifndef TROUPE_COORDINATOR_SCHEDULER_REPLICA_INFO_H_
#define TROUPE_COORDINATOR_SCHEDULER_REPLICA_INFO_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "troupe/v1/worker.pb.h"

namespace troupe {

// Groups a model may have; bounds the per-block arrays of the prefix index.
inline constexpr uint32_t kMaxKvGroups = 8;

struct KvGroupInfo {
  std::string name;
  // 0: pages for all tokens (full and compressed groups). Otherwise a token sees itself and
  // window_tokens - 1 before it, and pages behind that are given back.
  uint32_t window_tokens = 0;
  uint64_t page_bytes = 0;
  uint32_t page_count = 0;
  uint32_t host_page_count = 0;

  // First block that is needed to compute the token at `position`.
  uint32_t FirstBlock(uint32_t position, uint32_t block_tokens) const {
    if (window_tokens == 0 || position + 1 <= window_tokens) return 0;
    return (position + 1 - window_tokens) / block_tokens;
  }
};

struct ReplicaInfo {
  std::string worker;
  std::string identity;  // 32 bytes
  uint32_t block_tokens = 0;
  uint32_t max_rows = 0;
  uint32_t max_step_tokens = 0;
  uint32_t max_context = 0;
  bool has_cache = false;  // the worker can load and store blocks
  std::vector<KvGroupInfo> groups;

  // INVALID_ARGUMENT names the field that a worker got wrong.
  static absl::StatusOr<ReplicaInfo> From(const v1::WorkerInfo& info);

  // Pages of `group` without which a sequence of `tokens` computed tokens cannot proceed by one.
  uint32_t PagesNeeded(uint32_t group, uint32_t tokens) const;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_SCHEDULER_REPLICA_INFO_H_
