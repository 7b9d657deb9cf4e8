// The coordinator as one object: actors, services and gRPC server. `troupe-coordinator` runs one;
// other programs and tests may hold one in their own process.
//
// Health: "" as long as the process serves; "troupe.v1.Inference" while a worker is ready.
//
// Thread model: Start and Shutdown by one thread; the rest is thread-safe.
// Ownership: owns all that it runs.
#ifndef TROUPE_COORDINATOR_SERVER_H_
#define TROUPE_COORDINATOR_SERVER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/thread_executor.h"
#include "coordinator/admin_service.h"
#include "coordinator/fleet_actor.h"
#include "coordinator/inference_service.h"
#include "coordinator/reshard/reshard_actor.h"
#include "rpc/rpc_server.h"

namespace troupe {

class CoordinatorServer {
 public:
  struct Config {
    RpcServer::Config rpc = {.listen = "127.0.0.1:7100", .max_receive_bytes = 64 << 20};
    std::string model;                                 // folder: configs, tokenizer, chat template
    bool dummy_tokenizer = false;                      // where the folder has no tokenizer.json
    std::string cache;                                 // the cache service's address; empty: none
    std::string data_dir = "troupe-coordinator-data";  // holds the tenants' secret
    int threads = 2;                                   // that run actors
    FleetActor::Config fleet;
    // The first layout of the replica that workers with assignments make; it changes while it
    // serves. Empty: layouts are for life, see FleetActor::Config.
    std::string layout;
    ReshardActor::Config reshard;  // model and layout are filled in
    InferenceService::Config service;
  };

  // Errors name the file or the address that is wrong.
  static absl::StatusOr<std::unique_ptr<CoordinatorServer>> Start(const Config& config);

  // Shuts down at once if nobody has.
  ~CoordinatorServer();
  CoordinatorServer(const CoordinatorServer&) = delete;
  CoordinatorServer& operator=(const CoordinatorServer&) = delete;

  int port() const { return rpc_->port(); }

  // Takes no new requests, waits `grace` for those under way, cancels the rest.
  void Shutdown(absl::Duration grace);

 private:
  CoordinatorServer(const Config& config, std::shared_ptr<JobContext> context,
                    TenantNamespaces tenants, std::optional<ReshardActor::Config> reshard);

  class Readiness;

  static absl::StatusOr<ReshardActor::Config> ReshardConfig(const Config& config);
  FleetActor::ReshardFactory MakeReshard(const std::string& data_dir,
                                         std::optional<ReshardActor::Config> reshard);
  void Complete(v1::ClusterStatus& status) const;

  const absl::Time started_;
  const std::shared_ptr<Readiness> readiness_;
  const std::shared_ptr<JobContext> context_;
  ThreadExecutor executor_;
  ThreadExecutor long_prompts_;  // JobContext::long_prompts
  ThreadExecutor disk_;          // of the decision log
  ActorHandle<FleetMessage> fleet_;
  std::unique_ptr<InferenceService> inference_;
  std::unique_ptr<AdminService> admin_;
  std::unique_ptr<RpcServer> rpc_;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_SERVER_H_
