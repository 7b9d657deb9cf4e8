// A replica's KV pages and what they carry: the pools of all groups and the prefix index over them.
//
// Not thread-safe. Invariant: an index entry's page is exactly a page attached to that entry; a
// page handed out for new content carries nothing.
#ifndef TROUPE_COORDINATOR_SCHEDULER_KV_MEMORY_H_
#define TROUPE_COORDINATOR_SCHEDULER_KV_MEMORY_H_

#include <cstdint>
#include <vector>

#include "coordinator/scheduler/page_pool.h"
#include "coordinator/scheduler/prefix_index.h"
#include "coordinator/scheduler/replica_info.h"

namespace troupe {

class KvMemory {
 public:
  explicit KvMemory(const ReplicaInfo& replica);

  uint32_t group_count() const { return static_cast<uint32_t>(pools_.size()); }
  const PagePool& pool(uint32_t group) const { return pools_[group]; }

  // One page of each group is available; or will be, once the steps in flight have retired.
  bool HasBlock() const;
  bool WillHaveBlock() const;

  // REQUIRES: the group has a page available.
  PageId Allocate(uint32_t group);
  // As PagePool::Take.
  void Take(uint32_t group, PageId page) { pools_[group].Take(page); }
  void Ref(uint32_t group, PageId page) { pools_[group].Ref(page); }
  void Unref(uint32_t group, PageId page, uint64_t last_step) {
    pools_[group].Unref(page, last_step);
  }
  void Retire(uint64_t step);

  // `page` of `group` holds the block's final content. If the block has a page already, this one
  // stays private to its holders.
  PrefixEntry& Publish(const BlockKey& key, uint32_t group, PageId page);
  PrefixEntry* Find(const BlockKey& key) { return index_.Find(key); }
  const PrefixEntry* Find(const BlockKey& key) const { return index_.Find(key); }
  // Bit g: the block is in the memory of group g.
  uint32_t Held(const BlockKey& key) const;

 private:
  std::vector<PagePool> pools_;
  PrefixIndex index_;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_SCHEDULER_KV_MEMORY_H_
