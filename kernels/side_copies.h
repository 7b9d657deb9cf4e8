// Copies between a device's memory and the host's that run beside operations: what moves pages out
// and in while steps compute.
//
// Order, where every call counts from where the caller is:
//   Out   reads what operations called before it wrote. With Reuse::kAtOnce operations called after
//         it may overwrite what is copied; with kAfterIn, nothing may but a later In.
//   In    comes after all operations and all Outs called before it. Operations may read or write
//         what it fills, and Outs overwrite what it reads, once it is done.
//
// Thread model: as the Ops that made it, whose caller this is; what WhenDone is given runs on a
// thread of its own. Ownership: owns streams and what copies pass through; not to outlive the Ops.
// Invariants: no call waits for the device but Synchronize; errors show in the Ops' status().
#ifndef TROUPE_KERNELS_SIDE_COPIES_H_
#define TROUPE_KERNELS_SIDE_COPIES_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace troupe {

struct SideCopy {
  std::byte* device = nullptr;
  std::byte* host = nullptr;  // in memory of AllocateHost
  int64_t bytes = 0;
};

// On a device that computes in the caller's own memory: copies are over when the call returns.
class SideCopies {
 public:
  enum class Reuse { kAtOnce, kAfterIn };

  virtual ~SideCopies() = default;

  // Host memory that the device reaches at full speed, uninitialised; it may outlive this object.
  // ResourceExhausted, saying what was wanted and what stands in the way.
  virtual absl::StatusOr<std::shared_ptr<std::byte>> AllocateHost(int64_t bytes);

  // Makes room for copies of at most so many bytes each to be kAtOnce. REQUIRES: before the first.
  // ResourceExhausted where device memory is short.
  virtual absl::Status Reserve(int64_t largest_bytes);

  virtual void Out(absl::Span<const SideCopy> copies, Reuse reuse);
  virtual void In(absl::Span<const SideCopy> copies);

  // Calls `done` once all that was called so far is over. False, and no call: it is over.
  virtual bool WhenDone(absl::AnyInvocable<void()> done);
  virtual void Synchronize() {}
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_SIDE_COPIES_H_
