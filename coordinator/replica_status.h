// Adds up what the data-parallel homes of a replica report. Pure functions; any thread.
#ifndef TROUPE_COORDINATOR_REPLICA_STATUS_H_
#define TROUPE_COORDINATOR_REPLICA_STATUS_H_

#include <vector>

#include "troupe/v1/admin.pb.h"

namespace troupe {

// Counters, running, waiting and pages of one home, as Scheduler::Describe fills them.
void AddHome(const v1::WorkerStatus& home, v1::WorkerStatus& sum);
// By name.
void AddTenants(const std::vector<v1::TenantStatus>& home, std::vector<v1::TenantStatus>& sum);

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_REPLICA_STATUS_H_
