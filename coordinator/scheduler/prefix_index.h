// Finds the pages that carry a block's content: block key -> one page in each group, on the device,
// in host memory, or in both.
//
// Not thread-safe. Owns the entries; an entry lives while any group has a page for it, and its
// address stays the same. The pages belong to the groups' PagePools.
#ifndef TROUPE_COORDINATOR_SCHEDULER_PREFIX_INDEX_H_
#define TROUPE_COORDINATOR_SCHEDULER_PREFIX_INDEX_H_

#include <array>
#include <cstdint>

#include "absl/container/node_hash_map.h"
#include "coordinator/scheduler/block_key.h"
#include "coordinator/scheduler/page_pool.h"
#include "coordinator/scheduler/replica_info.h"

namespace troupe {

struct PrefixEntry {
  BlockKey key;
  std::array<PageId, kMaxKvGroups> pages;
  std::array<PageId, kMaxKvGroups> host_pages;
  uint32_t held = 0;    // bit g: pages[g] is one
  uint32_t hosted = 0;  // bit g: host_pages[g] is one
  uint32_t stored = 0;  // bit g: the cache service has the value, or it is on its way there
};

class PrefixIndex {
 public:
  // Null: no group has a page.
  const PrefixEntry* Find(const BlockKey& key) const;
  PrefixEntry* Find(const BlockKey& key);

  // The entry for `key`, made if there is none.
  PrefixEntry& FindOrAdd(const BlockKey& key);

  // The group's page carries something else now; the entry may be gone afterwards.
  void Drop(PrefixEntry& entry, uint32_t group);
  void DropHosted(PrefixEntry& entry, uint32_t group);

  size_t size() const { return entries_.size(); }

 private:
  void EraseEmpty(const PrefixEntry& entry);

  absl::node_hash_map<BlockKey, PrefixEntry> entries_;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_SCHEDULER_PREFIX_INDEX_H_
