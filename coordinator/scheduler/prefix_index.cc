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
  }
  return it->second;
}

void PrefixIndex::Drop(PrefixEntry& entry, uint32_t group) {
  CHECK((entry.held >> group & 1) != 0);
  entry.held &= ~(1u << group);
  entry.pages[group] = kNoPageId;
  if (entry.held == 0) {
    const BlockKey key = entry.key;  // erase must not read its argument from what it erases
    entries_.erase(key);
  }
}

}  // namespace troupe
