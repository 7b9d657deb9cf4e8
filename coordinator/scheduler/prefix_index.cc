#include "coordinator/scheduler/prefix_index.h"

#include "base/check.h"

namespace troupe {

const PrefixEntry* PrefixIndex::Find(const BlockKey& key) const {
  const auto it = entries_.find(key);
  return it == entries_.end() ? nullptr : &it->second;
}

PrefixEntry* PrefixIndex::Find(const BlockKey& key) {
  const auto it = entries_.find(key);
  return it == entries_.end() ? nullptr : &it->second;
}

PrefixEntry& PrefixIndex::FindOrAdd(const BlockKey& key) {
  const auto [it, added] = entries_.try_emplace(key);
  if (added) {
    it->second.key = key;
    it->second.pages.fill(kNoPageId);
    it->second.host_pages.fill(kNoPageId);
  }
  return it->second;
}

void PrefixIndex::Drop(PrefixEntry& entry, uint32_t group) {
  CHECK((entry.held >> group & 1) != 0);
  entry.held &= ~(1u << group);
  entry.pages[group] = kNoPageId;
  EraseEmpty(entry);
}

void PrefixIndex::DropHosted(PrefixEntry& entry, uint32_t group) {
  CHECK((entry.hosted >> group & 1) != 0);
  entry.hosted &= ~(1u << group);
  entry.host_pages[group] = kNoPageId;
  EraseEmpty(entry);
}

void PrefixIndex::EraseEmpty(const PrefixEntry& entry) {
  if ((entry.held | entry.hosted) != 0) return;
  const BlockKey key = entry.key;  // erase must not read its argument from what it erases
  entries_.erase(key);
}

}  // namespace troupe
