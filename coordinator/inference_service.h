// The client's door: Inference.Generate.
//
// A call becomes a JobActor; what it sends is written as fast as the client reads, up to a bound.
//
// Thread model: thread-safe, as gRPC's callback API wants it.
// Ownership: borrows the executor, shares the JobContext; a call owns its job. Outlives its server.
#ifndef TROUPE_COORDINATOR_INFERENCE_SERVICE_H_
#define TROUPE_COORDINATOR_INFERENCE_SERVICE_H_

#include <atomic>
#include <cstdint>
#include <memory>

#include "base/executor.h"
#include "coordinator/job_actor.h"
#include "coordinator/tenant.h"
#include "troupe/v1/inference.grpc.pb.h"

namespace troupe {

class InferenceService final : public v1::Inference::CallbackService {
 public:
  struct Config {
    uint32_t max_requests = 4096;       // under way at once; more are refused
    uint32_t max_unread_events = 8192;  // of one call; a client that is slower is given up
  };

  InferenceService(const Config& config, std::shared_ptr<JobContext> context,
                   TenantNamespaces tenants, Executor* executor);

  grpc::ServerWriteReactor<v1::GenerateEvent>* Generate(
      grpc::CallbackServerContext* call, const v1::GenerateRequest* request) override;

  uint64_t accepted() const { return accepted_; }

 private:
  absl::StatusOr<JobActor::Request> Accept(const grpc::CallbackServerContext& call,
                                           const v1::GenerateRequest& request) const;

  const Config config_;
  const std::shared_ptr<JobContext> context_;
  const TenantNamespaces tenants_;
  Executor* const executor_;
  std::atomic<uint64_t> accepted_{0};
  const std::shared_ptr<std::atomic<uint32_t>> active_;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_INFERENCE_SERVICE_H_
