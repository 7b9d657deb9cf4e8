#include "coordinator/scheduler/kv_memory.h"

#include <algorithm>

namespace troupe {

KvMemory::KvMemory(const ReplicaInfo& replica) {
  for (const KvGroupInfo& group : replica.groups) pools_.emplace_back(group.page_count);
}

bool KvMemory::HasBlock() const {
  return std::all_of(pools_.begin(), pools_.end(),
                     [](const PagePool& pool) { return pool.available() > 0; });
}

bool KvMemory::WillHaveBlock() const {
  return std::all_of(pools_.begin(), pools_.end(),
                     [](const PagePool& pool) { return pool.available() + pool.cooling() > 0; });
}

PageId KvMemory::Allocate(uint32_t group) {
  PrefixEntry* evicted = nullptr;
  const PageId page = pools_[group].Allocate(&evicted);
  if (evicted != nullptr) index_.Drop(*evicted, group);
  return page;
}

void KvMemory::Retire(uint64_t step) {
  for (PagePool& pool : pools_) pool.Retire(step);
}

PrefixEntry& KvMemory::Publish(const BlockKey& key, uint32_t group, PageId page) {
  PrefixEntry& entry = index_.FindOrAdd(key);
  if ((entry.held >> group & 1) == 0) {
    pools_[group].Attach(page, &entry);
    entry.pages[group] = page;
    entry.held |= 1u << group;
  }
  return entry;
}

uint32_t KvMemory::Held(const BlockKey& key) const {
  const PrefixEntry* entry = index_.Find(key);
  return entry == nullptr ? 0 : entry->held;
}

}  // namespace troupe
