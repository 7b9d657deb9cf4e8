// Communicator between GPUs, by NCCL, whose library is opened when the first one is made.
//
// Operations are enqueued on the Ops' queue and return at once. NCCL moves bytes; sums are formed
// in rank order by Ops (docs/adr/0008). Nothing here blocks for ever: communicators are made
// without blocking, and a thread watches them for errors and the queue for a standstill. What fails
// is aborted, which ends kernels that wait for a peer; where even that does not return, the process
// kills itself rather than hang.
//
// NCCL does not say which rank is lost; the coordinator, whose sessions end, does.
//
// Thread model: as Communicator's; one thread of its own for a communicator and all its splits.
#ifndef TROUPE_WORKER_NCCL_COMMUNICATOR_H_
#define TROUPE_WORKER_NCCL_COMMUNICATOR_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/ops.h"
#include "worker/communicator.h"
#include "worker/meeting.h"

namespace troupe {

struct NcclOptions {
  int rank = 0;
  int size = 1;
  absl::Duration connect_timeout = absl::Seconds(60);  // once all have met
  absl::Duration timeout = absl::Seconds(60);          // that the queue may stand still
};

// `ops` is borrowed and must be a GPU's. FailedPrecondition: it is not, or this build or this
// machine has no NCCL; Unavailable: the ranks did not connect; else what the meeting says.
absl::StatusOr<std::unique_ptr<Communicator>> MakeNcclCommunicator(const NcclOptions& options,
                                                                   Meeting& meeting, Ops* ops);

}  // namespace troupe

#endif  // TROUPE_WORKER_NCCL_COMMUNICATOR_H_
