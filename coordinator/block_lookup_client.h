// Asks the cache service which of a prompt's blocks it holds.
#ifndef TROUPE_COORDINATOR_BLOCK_LOOKUP_CLIENT_H_
#define TROUPE_COORDINATOR_BLOCK_LOOKUP_CLIENT_H_

#include <memory>

#include "cache_client/cache_client.h"
#include "coordinator/job_actor.h"

namespace troupe {

// A BlockLookup by Cache.Stat; it shares the client. A service that cannot be reached, or takes
// longer than the client's timeout, holds nothing. Thread-safe.
BlockLookup LookupByStat(std::shared_ptr<CacheClient> client);

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_BLOCK_LOOKUP_CLIENT_H_
