// Communicator between CPU ranks over TCP, on Gloo's transport.
//
// Gloo moves the bytes; which bytes, and the order in which they are summed, is decided here: its
// own all-reduce sums in an order that depends on the size (docs/adr/0008). Every member is
// connected to every other one; communicators that were split share the connections.
//
// A member that dies is noticed at once by its closed connection, one that stalls by `timeout`.
// Whoever notices tells the others whom it lost before it gives up its own connections, so that
// all name the same one.
//
// The process ignores SIGPIPE from the first one on, unless it handles that signal.
//
// Thread model: as Communicator's; three threads of its own a member: Gloo's loop, one that waits
// for bad news, and a StallWatch.
#ifndef TROUPE_WORKER_GLOO_COMMUNICATOR_H_
#define TROUPE_WORKER_GLOO_COMMUNICATOR_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/ops.h"
#include "worker/communicator.h"
#include "worker/meeting.h"

namespace troupe {

struct GlooOptions {
  int rank = 0;
  int size = 1;
  std::string host = "127.0.0.1";  // of this machine, where the others reach it: name or address
  absl::Duration connect_timeout = absl::Seconds(30);  // for each peer, once all have met
  absl::Duration timeout = absl::Seconds(60);          // for a peer, in each operation
};

// `ops` is borrowed and may be null where nothing computes in the memory named. InvalidArgument:
// `host` is not an address of this machine; Unavailable: a peer that cannot be reached, by rank and
// address; else what the meeting says.
absl::StatusOr<std::unique_ptr<Communicator>> MakeGlooCommunicator(const GlooOptions& options,
                                                                   Meeting& meeting, Ops* ops);

}  // namespace troupe

#endif  // TROUPE_WORKER_GLOO_COMMUNICATOR_H_
