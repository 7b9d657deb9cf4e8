// Fork and join for kernels: a loop's iterations over a fixed set of threads, in about a
// microsecond.
//
// Thread model: one caller at a time, never from inside a loop's body. The caller works too, so a
// pool of one thread starts none and adds nothing to a plain call.
// Ownership: the pool owns its threads; a loop's body is borrowed until ParallelFor returns.
// Invariants: every index is visited exactly once; which thread visits it varies, so results must
// not depend on it. ParallelFor allocates nothing. Threads that wait for work spin for `spin_us`,
// then sleep; a loop never waits for a thread that has not yet woken up, since the others do its
// part.
#ifndef TROUPE_KERNELS_THREAD_POOL_THREAD_POOL_H_
#define TROUPE_KERNELS_THREAD_POOL_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace troupe {

// Indices [begin, end) of a loop, on thread `worker` of the pool (0: the caller), by which a body
// finds scratch of its own.
struct WorkRange {
  int64_t begin;
  int64_t end;
  int worker;
};

class ThreadPool {
 public:
  using Body = absl::FunctionRef<void(WorkRange)>;

  struct Config {
    int threads = 0;  // the caller included; 0: AvailableCores()
    int spin_us = 100;
  };

  explicit ThreadPool(const Config& config);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(lanes_.size()); }

  // Calls body on disjoint ranges of at most `grain` indices that cover [0, count). Each thread
  // begins with its own contiguous share, the same for the same count and grain, so that it finds
  // its data in its own cache; then it helps the others. A pool of one thread makes one call, with
  // everything.
  void ParallelFor(int64_t count, int64_t grain, Body body);

 private:
  // What one thread has to do, and whether it is inside the loop; on cache lines of its own.
  struct alignas(128) Lane {
    std::atomic<int64_t> next{0};  // first index not yet taken
    int64_t end = 0;
    std::atomic<bool> inside{false};
  };

  void WorkerMain(int worker);
  uint32_t AwaitOpen(uint32_t seen_epoch) const;
  void WorkOn(int worker);

  const int spin_us_;
  std::vector<Lane> lanes_;  // one a thread; 0 is the caller's
  std::vector<std::thread> threads_;

  // The loop in progress. Odd epoch: open, workers may enter; even: closed.
  alignas(128) std::atomic<uint32_t> epoch_{0};
  std::atomic<bool> stopping_{false};
  int64_t grain_ = 0;
  const Body* body_ = nullptr;
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_THREAD_POOL_THREAD_POOL_H_
