#include "coordinator/scheduler/kv_memory.h"

#include <algorithm>

namespace troupe {

KvMemory::KvMemory(const ReplicaInfo& replica) {
  for (const KvGroupInfo& group : replica.groups) {
    pools_.emplace_back(group.page_count);
    host_pools_.emplace_back(group.host_page_count);
  }
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
  if (evicted != nullptr) {
    MoveToHost(*evicted, group);
    index_.Drop(*evicted, group);
  }
  return page;
}

// The entry has its device page still.
void KvMemory::MoveToHost(PrefixEntry& entry, uint32_t group) {
  PagePool& host = host_pools_[group];
  if (!spills_ || (entry.hosted >> group & 1) != 0 || host.available() == 0) return;
  PrefixEntry* evicted = nullptr;
  const PageId page = host.Allocate(&evicted);
  if (evicted != nullptr) index_.DropHosted(*evicted, group);
  host.Attach(page, &entry);
  entry.host_pages[group] = page;
  entry.hosted |= 1u << group;
  pending_.push_back({.group = group, .page = entry.pages[group], .host_page = page});
}

std::vector<KvMemory::Spill> KvMemory::TakeSpills(absl::FunctionRef<bool(const Spill&)> is_due) {
  std::vector<Spill> due;
  std::erase_if(pending_, [&](const Spill& spill) {
    if (!is_due(spill)) return false;
    due.push_back(spill);
    // What a later plan sends comes after it.
    UnrefHost(spill.group, spill.host_page);
    return true;
  });
  return due;
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

uint32_t KvMemory::HeldAnywhere(const BlockKey& key) const {
  const PrefixEntry* entry = index_.Find(key);
  return entry == nullptr ? 0 : entry->held | entry->hosted;
}

}  // namespace troupe
