// The worker as one object: rank, actors, gRPC service and registration. `troupe-worker` runs one;
// other programs and tests may hold one, or several, in their own process.
//
// Health: "" as long as the process serves; "troupe.v1.Worker" until Shutdown begins.
//
// Thread model: Start and Shutdown by one thread; the rest is thread-safe.
// Ownership: owns all that it runs.
#ifndef TROUPE_WORKER_SERVER_H_
#define TROUPE_WORKER_SERVER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/thread_executor.h"
#include "cache_client/cache_client.h"
#include "rpc/rpc_server.h"
#include "worker/block_transfers.h"
#include "worker/rank_member.h"
#include "worker/registrar_actor.h"
#include "worker/worker_service.h"

namespace troupe {

class WorkerServer {
 public:
  struct Config {
    // A plan may carry several prompts of a million tokens.
    RpcServer::Config rpc = {.listen = "127.0.0.1:7101", .max_receive_bytes = 256 << 20};
    std::string name;       // unique among live workers; empty: the address it advertises
    std::string advertise;  // where the coordinator reaches this worker; empty: where it listens
    std::string coordinator = "127.0.0.1:7100";  // empty: wait to be dialled, tell nobody
    std::string cache;                           // the cache service's address; empty: none
    Rank::Config rank;
    // Take the rank that a coordinator assigns, instead of loading the whole model at once.
    bool sharded = false;
    // Where other ranks reach this one; empty: the host of `advertise`, or of the address listened
    // on, or this machine alone.
    std::string ranks_host;
    absl::Duration collective_timeout = absl::Seconds(60);  // for another rank, in one operation
    // Unset: DYNAMIC_ATTENTION_THRESHOLD in the environment, else the model's.
    std::optional<float> gate_threshold;
    BlockTransfers::Config transfers;
    CacheClient::Config cache_client;
    RegistrarActor::Config registrar;
    WorkerService::Config service;
  };

  // Loads the model, serves, and announces the worker. Errors name the file, the address, the
  // memory or the setting that is wrong. `progress` may be null.
  static absl::StatusOr<std::unique_ptr<WorkerServer>> Start(
      const Config& config, const Rank::Progress& progress = nullptr);

  // Shuts down at once if nobody has.
  ~WorkerServer();
  WorkerServer(const WorkerServer&) = delete;
  WorkerServer& operator=(const WorkerServer&) = delete;

  // What the coordinator dials.
  const std::string& address() const { return address_; }
  // Of a sharded worker: its name alone.
  const v1::WorkerInfo& info() const { return info_; }

  // Runs the plans that are here, ends the session with UNAVAILABLE, waits `grace` for the other
  // end to have heard, and stops.
  void Shutdown(absl::Duration grace);

 private:
  explicit WorkerServer(const Config& config);

  absl::Status Serve(const Config& config, const Rank::Progress& progress);
  void Announce(const Config& config);

  std::unique_ptr<RankMember> member_;
  std::unique_ptr<CacheClient> cache_;
  ThreadExecutor device_executor_;          // one thread, which steps block
  ThreadExecutor control_executor_;         // never blocked
  std::unique_ptr<ThreadExecutor> loader_;  // one thread, which loading shards blocks
  std::unique_ptr<ThreadExecutor> sender_;  // one thread, which reading weights for peers blocks
  ActorHandle<ExecutorMessage> executor_;
  std::string address_;
  v1::WorkerInfo info_;
  std::unique_ptr<WorkerService> service_;
  std::unique_ptr<RpcServer> rpc_;
  std::unique_ptr<RegistrationClient> registration_;
  ActorHandle<RegistrarMessage> registrar_;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_SERVER_H_
