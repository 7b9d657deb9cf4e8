// The first failure of a communicator and of all that were split from it, kept for everybody.
//
// Thread model: thread-safe. Ownership: shared by those whom it concerns. Invariants: the first
// reason stays; a listener runs at most once, in the thread that failed first, and never after
// Forget has returned. Listeners must not call the latch and Trip must not be called with a lock
// that a listener takes.
#ifndef TROUPE_WORKER_FAILURE_LATCH_H_
#define TROUPE_WORKER_FAILURE_LATCH_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>

#include "absl/status/status.h"

namespace troupe {

class FailureLatch {
 public:
  // Keeps `reason`, which must not be OK, unless one is there, and wakes the listeners.
  void Trip(const absl::Status& reason);

  // Cheap: may be asked in every operation.
  bool tripped() const { return tripped_.load(std::memory_order_acquire); }
  // OK until something failed.
  absl::Status status() const;

  // Runs `on_failure` at once where something has failed before. The id is for Forget.
  uint64_t Listen(std::function<void()> on_failure);
  void Forget(uint64_t id);

 private:
  std::atomic<bool> tripped_ = false;
  mutable std::mutex status_mutex_;
  absl::Status status_;  // guarded by status_mutex_
  std::mutex listeners_mutex_;
  std::map<uint64_t, std::function<void()>> listeners_;  // guarded by listeners_mutex_
  uint64_t last_id_ = 0;                                 // guarded by listeners_mutex_
};

}  // namespace troupe

#endif  // TROUPE_WORKER_FAILURE_LATCH_H_
