// Side copies for QueuedOps: a thread for each direction, which dawdle now and then, so that what
// does not wait for what it must wait for sees other bytes.
//
// Thread model: as SideCopies. Ownership: owns the threads; the queue of operations is the caller's
// and outlives it.
#ifndef TROUPE_WORKER_TESTING_QUEUED_COPIES_H_
#define TROUPE_WORKER_TESTING_QUEUED_COPIES_H_

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "absl/functional/any_invocable.h"
#include "absl/synchronization/notification.h"
#include "kernels/side_copies.h"

namespace troupe {

class QueuedCopies final : public SideCopies {
 public:
  // `push` puts work into the queue of operations.
  explicit QueuedCopies(std::function<void(absl::AnyInvocable<void()>)> push);

  void Out(absl::Span<const SideCopy> copies, Reuse reuse) override;
  void In(absl::Span<const SideCopy> copies) override;
  bool WhenDone(absl::AnyInvocable<void()> done) override;
  void Synchronize() override;

 private:
  using Event = std::shared_ptr<absl::Notification>;

  // Runs what it is given, in order, on a thread of its own.
  class Lane {
   public:
    Lane();
    ~Lane();
    void Push(absl::AnyInvocable<void()> work);

   private:
    void Run();

    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<absl::AnyInvocable<void()>> queue_;  // guarded by mutex_, as is the next
    bool stopping_ = false;
    std::thread thread_;
  };

  Event InOperations();
  static Event In(Lane& lane);

  const std::function<void(absl::AnyInvocable<void()>)> push_;
  Lane out_;
  Lane in_;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_TESTING_QUEUED_COPIES_H_
