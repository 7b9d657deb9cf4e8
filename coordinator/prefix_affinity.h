// Remembers which leading blocks a replica was asked to compute, so that requests with the same
// prefix find their way back to it. A guess, never a promise: the replica may have let them go.
//
// Thread model: one owner. Memory: bounded by `capacity` keys, the least recently used go first.
#ifndef TROUPE_COORDINATOR_PREFIX_AFFINITY_H_
#define TROUPE_COORDINATOR_PREFIX_AFFINITY_H_

#include <cstddef>
#include <cstdint>
#include <list>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "coordinator/scheduler/block_key.h"

namespace troupe {

class PrefixAffinity {
 public:
  explicit PrefixAffinity(size_t capacity) : capacity_(capacity) {}

  void Insert(absl::Span<const BlockKey> keys);
  // How many of the leading keys are remembered.
  uint32_t Match(absl::Span<const BlockKey> keys) const;

 private:
  const size_t capacity_;
  std::list<BlockKey> recent_;  // most recently used first
  absl::flat_hash_map<BlockKey, std::list<BlockKey>::iterator> known_;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_PREFIX_AFFINITY_H_
