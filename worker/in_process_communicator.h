// Communicators between threads of one process: for several ranks on one machine's memory, and the
// oracle in tests.
//
// Members copy from each other's memory, which all of them can address (a CPU's Ops). Contract of
// failures: a member that does not come within `timeout` is named; one that is destroyed while
// another waits for it has left, which fails the others.
//
// Thread model: each member is used by one thread, its own. Ownership: members share the group.
#ifndef TROUPE_WORKER_IN_PROCESS_COMMUNICATOR_H_
#define TROUPE_WORKER_IN_PROCESS_COMMUNICATOR_H_

#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kernels/ops.h"
#include "worker/communicator.h"

namespace troupe {

struct InProcessOptions {
  absl::Duration timeout = absl::Seconds(60);  // until the last member has come, in each operation
};

// [ops] communicators, member r's first; `ops[r]` is borrowed and may be null where nothing
// computes in the memory that member r names. Mismatched sizes or operations are CHECKs.
std::vector<std::unique_ptr<Communicator>> MakeInProcessCommunicators(
    absl::Span<Ops* const> ops, const InProcessOptions& options = {});

}  // namespace troupe

#endif  // TROUPE_WORKER_IN_PROCESS_COMMUNICATOR_H_
