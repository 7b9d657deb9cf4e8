// Communicator out of a way to exchange bytes with every peer: the part of a transport in the
// caller's memory that does not depend on the transport.
//
// Thread model: as Communicator's. Ownership: communicators that were split share the mesh.
#ifndef TROUPE_WORKER_MESH_COMMUNICATOR_H_
#define TROUPE_WORKER_MESH_COMMUNICATOR_H_

#include <cstdint>
#include <memory>

#include "absl/types/span.h"
#include "kernels/ops.h"
#include "worker/communicator.h"
#include "worker/failure_latch.h"

namespace troupe {

// Bytes for or from a peer, which is a rank of the mesh and not the member itself.
struct Transfer {
  int peer = 0;
  void* data = nullptr;  // that is sent is not written
  int64_t bytes = 0;
};

// One member's connections to all others.
class Mesh {
 public:
  virtual ~Mesh() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Sends and receives all of it and returns when that is done or the latch has tripped, at once
  // where it had before. Between two members, the receives of a slot match its sends in order.
  // Empty transfers are left out on both sides. One caller at a time.
  virtual void Exchange(uint64_t slot, absl::Span<const Transfer> sends,
                        absl::Span<const Transfer> receives) = 0;

  FailureLatch& latch() { return latch_; }

 protected:
  FailureLatch latch_;
};

// Of all members of the mesh. `ops` is borrowed and may be null where nothing computes in the
// memory named. Slots from `first_slot` on are used.
std::unique_ptr<Communicator> MakeMeshCommunicator(std::shared_ptr<Mesh> mesh, uint64_t first_slot,
                                                   Ops* ops);

}  // namespace troupe

#endif  // TROUPE_WORKER_MESH_COMMUNICATOR_H_
