// The answer to DescribeFleet in the making.
//
// Thread model: thread-safe. Ownership: shared by the replies that are awaited.
#ifndef TROUPE_COORDINATOR_STATUS_COLLECTOR_H_
#define TROUPE_COORDINATOR_STATUS_COLLECTOR_H_

#include <mutex>
#include <utility>
#include <vector>

#include "coordinator/messages.h"
#include "coordinator/replica_status.h"
#include "troupe/v1/admin.pb.h"

namespace troupe {

// Gathers what the replicas answer; replies when the last of them has, or has gone without.
class StatusCollector {
 public:
  StatusCollector(v1::ClusterStatus status, DescribeFleet request)
      : status_(std::move(status)), request_(std::move(request)) {}
  ~StatusCollector() {
    for (v1::TenantStatus& tenant : tenants_) *status_.add_tenants() = std::move(tenant);
    request_.reply(std::move(status_));
  }
  StatusCollector(const StatusCollector&) = delete;
  StatusCollector& operator=(const StatusCollector&) = delete;

  void Add(v1::WorkerStatus worker, const std::vector<v1::TenantStatus>& tenants) {
    std::lock_guard lock(mutex_);
    status_.set_tokens_generated(status_.tokens_generated() + worker.tokens_generated());
    *status_.add_workers() = std::move(worker);
    AddTenants(tenants, tenants_);
  }

 private:
  std::mutex mutex_;
  v1::ClusterStatus status_;
  std::vector<v1::TenantStatus> tenants_;
  DescribeFleet request_;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_STATUS_COLLECTOR_H_
