// The timers of one executor, earliest first; timers of one instant come in the order they were
// set. Not thread-safe: the executor's own lock guards it. Owns the tasks it holds; they come back
// to the caller, who destroys them outside of its lock, since a task's destructor may call the
// executor.

#ifndef TROUPE_BASE_TIMER_QUEUE_H_
#define TROUPE_BASE_TIMER_QUEUE_H_

#include <cstdint>
#include <map>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "base/executor.h"

namespace troupe {

class TimerQueue {
 public:
  struct Timer {
    TimerId id;
    Task task;
  };

  bool empty() const { return by_deadline_.empty(); }
  // The clock's MonotonicNs at which the first timer is due. Not empty.
  int64_t first_deadline_ns() const { return by_deadline_.begin()->first.first; }

  TimerId Add(int64_t deadline_ns, Task task) {
    const TimerId id(++last_id_);
    by_deadline_.emplace(Key(deadline_ns, id), std::move(task));
    deadline_ns_of_.emplace(id, deadline_ns);
    return id;
  }

  // Takes the timer out; a null task when it is not here.
  Timer Remove(TimerId id) {
    const auto found = deadline_ns_of_.find(id);
    if (found == deadline_ns_of_.end()) return {id, nullptr};
    auto node = by_deadline_.extract(Key(found->second, id));
    deadline_ns_of_.erase(found);
    return {id, std::move(node.mapped())};
  }

  // Takes the first timer out. Not empty.
  Timer PopFirst() { return Remove(by_deadline_.begin()->first.second); }

 private:
  using Key = std::pair<int64_t, TimerId>;  // When due, and which.

  std::map<Key, Task> by_deadline_;
  absl::flat_hash_map<TimerId, int64_t> deadline_ns_of_;
  uint64_t last_id_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_BASE_TIMER_QUEUE_H_
