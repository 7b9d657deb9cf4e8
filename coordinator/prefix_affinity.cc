#include "coordinator/prefix_affinity.h"

#include <algorithm>

namespace troupe {

void PrefixAffinity::Insert(absl::Span<const BlockKey> keys) {
  // Last block first: the head of a prefix, which matters most, ends up the most recent.
  keys = keys.subspan(0, std::min(keys.size(), capacity_));
  for (size_t i = keys.size(); i-- > 0;) {
    const auto found = known_.find(keys[i]);
    if (found != known_.end()) {
      recent_.splice(recent_.begin(), recent_, found->second);
      continue;
    }
    recent_.push_front(keys[i]);
    known_[keys[i]] = recent_.begin();
  }
  while (recent_.size() > capacity_) {
    known_.erase(recent_.back());
    recent_.pop_back();
  }
}

uint32_t PrefixAffinity::Match(absl::Span<const BlockKey> keys) const {
  uint32_t count = 0;
  while (count < keys.size() && known_.contains(keys[count])) ++count;
  return count;
}

}  // namespace troupe
