// Notices an operation that makes no progress.
//
// Beginning and ending an operation costs a store each; a thread looks now and then, so that a
// stall is noticed within 1.25 times the limit.
//
// Thread model: Begin, WaitFor and End by one thread, waits_for by any; `on_stall` runs on the
// watch's own, at most once. Ownership: owns its thread, which the destructor joins.
#ifndef TROUPE_WORKER_STALL_WATCH_H_
#define TROUPE_WORKER_STALL_WATCH_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

#include "absl/time/time.h"

namespace troupe {

class StallWatch {
 public:
  // `on_stall` is told the peer that the operation waits for, -1 where that is not known.
  StallWatch(absl::Duration limit, std::function<void(int peer)> on_stall);
  ~StallWatch();
  StallWatch(const StallWatch&) = delete;
  StallWatch& operator=(const StallWatch&) = delete;

  // Ends the thread, after `on_stall` if that runs. The destructor does the same.
  void Stop();

  void Begin();
  void WaitFor(int peer) { peer_.store(peer, std::memory_order_relaxed); }
  // The peer that an operation waits for right now; -1: none. Any thread.
  int waits_for() const {
    return begun_ns_.load(std::memory_order_acquire) == 0 ? -1
                                                          : peer_.load(std::memory_order_relaxed);
  }
  void End() { begun_ns_.store(0, std::memory_order_release); }

 private:
  void Watch();

  const absl::Duration limit_;
  const std::function<void(int)> on_stall_;
  std::atomic<int64_t> begun_ns_ = 0;  // of the steady clock; 0: no operation
  std::atomic<int> peer_ = -1;
  std::mutex mutex_;
  std::condition_variable stop_changed_;
  bool stop_ = false;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_STALL_WATCH_H_
