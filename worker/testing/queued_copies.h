// Side copies for QueuedOps: a thread for each direction, which dawdle now and then, so that what
// does not wait for what it must wait for sees other bytes.
//
// Thread model: as SideCopies. Ownership: owns the threads; the queue of operations is the caller's
// and outlives it.
#ifndef TROUPE_WORKER_TESTING_QUEUED_COPIES_H_
#define TROUPE_WORKER_TESTING_QUEUED_COPIES_H_

#include <functional>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/synchronization/notification.h"
#include "kernels/side_copies.h"
#include "worker/testing/work_queue.h"

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

  Event InOperations();
  static Event In(WorkQueue& lane);

  const std::function<void(absl::AnyInvocable<void()>)> push_;
  WorkQueue out_;
  WorkQueue in_;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_TESTING_QUEUED_COPIES_H_
