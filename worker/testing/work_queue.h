// Runs what it is given, in order, on a thread of its own.
//
// Thread model: Push and WaitFor by one thread. Ownership: owns the thread; what was pushed has run
// when it is gone.
#ifndef TROUPE_WORKER_TESTING_WORK_QUEUE_H_
#define TROUPE_WORKER_TESTING_WORK_QUEUE_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>

#include "absl/functional/any_invocable.h"

namespace troupe {

class WorkQueue {
 public:
  WorkQueue();
  ~WorkQueue();
  WorkQueue(const WorkQueue&) = delete;
  WorkQueue& operator=(const WorkQueue&) = delete;

  void Push(absl::AnyInvocable<void()> work);
  // Since the beginning.
  int64_t pushed() const { return pushed_; }
  // Until so many have run.
  void WaitFor(int64_t done);

 private:
  void Run();

  int64_t pushed_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<absl::AnyInvocable<void()>> queue_;  // guarded by mutex_, as are the next two
  int64_t done_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_TESTING_WORK_QUEUE_H_
