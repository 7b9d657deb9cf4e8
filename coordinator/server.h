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
    // Of each replica, and how it is cut, as ParseLayout reads it. One rank: its worker loads the
    // whole model by itself. An empty layout: the one that suits the model, of so many ranks; a
    // layout says how many ranks there are.
    int ranks = 1;
    std::string layout;
    RpcServer::Config rpc = {.listen = "127.0.0.1:7100", .max_receive_bytes = 64 << 20};
    std::string model;                                 // folder: configs, tokenizer, chat template
    bool dummy_tokenizer = false;                      // where the folder has no tokenizer.json
    std::string cache;                                 // the cache service's address; empty: none
    std::string data_dir = "troupe-coordinator-data";  // holds the tenants' secret
    int threads = 2;                                   // that run actors
    FleetActor::Config fleet;
    // All workers with assignments make one replica, which has that layout first and changes it
    // while it serves; workers that it has no place for are spares.
    bool elastic = false;
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
  // Of each replica.
  int ranks() const { return ranks_; }
  // Some replica has all its ranks.
  bool ready() const;

  // Takes no new requests, waits `grace` for those under way, cancels the rest.
  void Shutdown(absl::Duration grace);

 private:
  CoordinatorServer(const Config& config, std::shared_ptr<JobContext> context,
                    TenantNamespaces tenants);

  class Readiness;

  FleetActor::ReshardFactory MakeReshard(const Config& config);
  void Complete(v1::ClusterStatus& status) const;

  const absl::Time started_;
  const int ranks_;
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
