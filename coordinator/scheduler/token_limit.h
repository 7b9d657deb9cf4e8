// Whether a sequence can ever run on a replica. A pure function; any thread.
#ifndef TROUPE_COORDINATOR_SCHEDULER_TOKEN_LIMIT_H_
#define TROUPE_COORDINATOR_SCHEDULER_TOKEN_LIMIT_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "coordinator/scheduler/replica_info.h"
#include "coordinator/scheduler/sequence.h"

namespace troupe {

// The tokens, prompt included, at which generation ends. INVALID_ARGUMENT: a field is out of range,
// or the sequence would not fit even alone; the message has the arithmetic.
absl::StatusOr<uint32_t> TokenLimit(const SequenceRequest& request, const ReplicaInfo& replica);

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_SCHEDULER_TOKEN_LIMIT_H_
