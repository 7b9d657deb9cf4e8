#include "coordinator/scheduler/urgency_list.h"

#include <algorithm>

#include "base/check.h"

namespace troupe {

void UrgencyList::Add(const Urgency& urgency, LiveSequence* sequence) {
  items_.push_back({urgency, sequence});
  ++size_;
}

void UrgencyList::Remove(const Urgency& urgency) {
  CHECK_EQ(sorted_, items_.size());
  const auto it =
      std::lower_bound(items_.begin(), items_.end(), urgency,
                       [](const Item& item, const Urgency& u) { return item.urgency < u; });
  CHECK(it != items_.end() && !(urgency < it->urgency) && it->sequence != nullptr)
      << "sequence " << urgency.id << " is not in the list";
  it->sequence = nullptr;
  --size_;
}

void UrgencyList::Settle() {
  const auto before = [](const Item& a, const Item& b) { return a.urgency < b.urgency; };
  if (items_.size() != size_) {
    const auto end = items_.begin() + static_cast<std::ptrdiff_t>(sorted_);
    const auto kept =
        std::remove_if(items_.begin(), end, [](const Item& i) { return i.sequence == nullptr; });
    sorted_ = static_cast<size_t>(kept - items_.begin());
    items_.erase(kept, end);
  }
  if (sorted_ == items_.size()) return;
  const auto middle = items_.begin() + static_cast<std::ptrdiff_t>(sorted_);
  std::sort(middle, items_.end(), before);
  std::inplace_merge(items_.begin(), middle, items_.end(), before);
  sorted_ = items_.size();
}

}  // namespace troupe
