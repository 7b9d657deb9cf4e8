// Collective operations between the ranks of one epoch of a shard map, or of a part of them.
//
// Implementations: in-process (threads of one process, for one machine and for tests), Gloo (CPU
// ranks over TCP), NCCL (GPUs). All members call the same operations in the same order with
// matching sizes; what a rank has no work for it still joins, with empty parts.
//
// Memory: every pointer is to the memory of the rank's Ops. Operations run in order with that Ops'
// operations: an implementation that works in the caller's memory first waits for the Ops, one on
// a GPU enqueues on its stream. An Ops' Synchronize() is what makes results visible to the caller.
//
// Thread model: one caller at a time, the one that owns the Ops; Abort may come from any thread.
// Ownership: borrows the Ops, which must outlive it. Invariants: sums are formed in rank order,
// whatever the sizes, so that a token's result does not depend on who shares the step; the same
// bits arrive at every member. After a failure or Abort, status() says why, naming the rank that is
// missing where that is known, and operations do nothing: the owner forms a new communicator.
#ifndef TROUPE_WORKER_COMMUNICATOR_H_
#define TROUPE_WORKER_COMMUNICATOR_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace troupe {

// A run of bytes in the memory of the rank's Ops.
struct CommBytes {
  void* data = nullptr;
  int64_t bytes = 0;
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // values[i] becomes the sum over members of theirs, `count` f32 of stride one.
  virtual void AllReduceSum(float* values, int64_t count) = 0;

  // Every member's `mine`, the same size each, one after another in rank order. `mine` may be its
  // place in `all`.
  virtual void AllGather(const void* mine, int64_t bytes_each, void* all) = 0;

  // to[r] goes to member r, and from[r] receives what r sent here. A member's size for another
  // equals what that one expects; zero is fine.
  virtual void AllToAll(absl::Span<const CommBytes> to, absl::Span<const CommBytes> from) = 0;

  // Point to point, for pipeline stages; the two calls match one to one, in order. Either may wait
  // for the other.
  virtual void Send(int to_rank, const void* data, int64_t bytes) = 0;
  virtual void Receive(int from_rank, void* data, int64_t bytes) = 0;

  // Operations of this communicator run again, as part of a section that the device keeps
  // (kernels/replays.h). All members keep the same sections and run them at the same time.
  virtual void Replayed() {}

  // Returns when all members have called it.
  virtual void Barrier() = 0;

  // A communicator of the members that give the same colour, ordered by their rank here. All
  // members call it.
  virtual absl::StatusOr<std::unique_ptr<Communicator>> Split(int colour) = 0;

  // Makes pending and later operations of this member and, as far as they can be told, of the
  // others return with `reason`.
  virtual void Abort(const absl::Status& reason) = 0;

  virtual absl::Status status() const = 0;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_COMMUNICATOR_H_
