// How much of a prefix a set of pages allows to skip.
//
// A sequence can start at a block boundary where every group has what it needs: full and compressed
// groups the pages of all blocks before it, a window group those that overlap the window_tokens - 1
// tokens before it.
//
// Pure functions; any thread.
#ifndef TROUPE_COORDINATOR_SCHEDULER_PREFIX_BOUNDARY_H_
#define TROUPE_COORDINATOR_SCHEDULER_PREFIX_BOUNDARY_H_

#include <array>
#include <cstdint>

#include "coordinator/scheduler/replica_info.h"

namespace troupe {

// True if a start at block `boundary` needs block `block` of `group`.
inline bool IsNeeded(const ReplicaInfo& replica, uint32_t group, uint32_t block,
                     uint32_t boundary) {
  return block < boundary && block >= replica.groups[group].FirstBlock(
                                          boundary * replica.block_tokens, replica.block_tokens);
}

// The furthest boundary, in blocks and at most `max_blocks`, for which the pages suffice. `held(i)`
// has bit g set if there is the page of block i in group g; it is called once a block, in order.
template <typename Held>
uint32_t LongestBoundary(const ReplicaInfo& replica, uint32_t max_blocks, Held held) {
  const uint32_t groups = static_cast<uint32_t>(replica.groups.size());
  std::array<uint32_t, kMaxKvGroups> run = {};  // held blocks in a row, up to this one
  uint32_t boundary = 0;
  for (uint32_t block = 0; block < max_blocks; ++block) {
    const uint32_t mask = held(block);
    const uint32_t next = block + 1;
    bool usable = true;
    for (uint32_t g = 0; g < groups; ++g) {
      run[g] = (mask >> g & 1) != 0 ? run[g] + 1 : 0;
      if (replica.groups[g].window_tokens == 0) {
        if (run[g] != next) return boundary;
      } else {
        const uint32_t first =
            replica.groups[g].FirstBlock(next * replica.block_tokens, replica.block_tokens);
        usable = usable && run[g] >= next - first;
      }
    }
    if (usable) boundary = next;
  }
  return boundary;
}

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_SCHEDULER_PREFIX_BOUNDARY_H_
