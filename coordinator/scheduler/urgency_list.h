// Sequences in order of urgency, made for one pass over all of them a step: a sorted array, not a
// tree, because tens of thousands of sequences are walked and only a few come or go.
//
// What leaves makes a hole, found by bisection; what comes waits at the end until Settle, which
// merges it in and closes the holes. So a step costs one pass however many come and go in it.
//
// Not thread-safe. Sequences belong to the caller; their urgencies must not change meanwhile.
#ifndef TROUPE_COORDINATOR_SCHEDULER_URGENCY_LIST_H_
#define TROUPE_COORDINATOR_SCHEDULER_URGENCY_LIST_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "coordinator/scheduler/priority.h"

namespace troupe {

struct LiveSequence;

class UrgencyList {
 public:
  // Counted at once, at its place only after Settle.
  void Add(const Urgency& urgency, LiveSequence* sequence);
  // REQUIRES: it is in the list, and nothing was added since Settle.
  void Remove(const Urgency& urgency);
  void Settle();

  // Sequences in the list.
  uint32_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  // Places, most urgent first, those of removed sequences among them until Settle.
  size_t places() const { return items_.size(); }
  // Null: removed.
  LiveSequence* at(size_t place) const { return items_[place].sequence; }

 private:
  struct Item {
    Urgency urgency;
    LiveSequence* sequence = nullptr;
  };

  std::vector<Item> items_;
  size_t sorted_ = 0;  // items before this one are in order
  uint32_t size_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_SCHEDULER_URGENCY_LIST_H_
