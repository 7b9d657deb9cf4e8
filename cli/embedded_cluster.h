// Coordinator, the workers of one replica and the cache in this process, over the same messages as
// anywhere: their servers listen on Unix sockets in a private folder. Only the coordinator may
// listen elsewhere.
//
// Thread model: one thread. Ownership: owns the servers and the folder of sockets.
#ifndef TROUPE_CLI_EMBEDDED_CLUSTER_H_
#define TROUPE_CLI_EMBEDDED_CLUSTER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cache_service/server.h"
#include "coordinator/server.h"
#include "worker/server.h"

namespace troupe {

class EmbeddedCluster {
 public:
  struct Config {
    std::string model;
    std::string dtype = "bf16";
    std::string load_format = "safetensors";  // or "dummy": random weights
    std::string listen;                       // of the coordinator; empty: a private socket
    std::string data_dir;                     // empty: DefaultDataDir()
    bool use_cache = true;
    // Without a cache rather than not at all, when its folder cannot be used.
    bool cache_optional = false;
    uint64_t cache_bytes = uint64_t{4} << 30;
    // Workers in this process that make one replica, and how it is cut, as
    // CoordinatorServer::Config has them. Threads are shared out; other limits are each one's own.
    int ranks = 1;
    std::string layout;
    bool elastic = false;
    Rank::Config rank;
    float gate_threshold = -1;  // -1: as WorkerServer::Config without one
    FleetActor::Config fleet;
  };
  using Progress = Rank::Progress;

  static absl::StatusOr<std::unique_ptr<EmbeddedCluster>> Start(const Config& config,
                                                                const Progress& progress);
  // $XDG_DATA_HOME/troupe, or ~/.local/share/troupe.
  static std::string DefaultDataDir();

  ~EmbeddedCluster();
  EmbeddedCluster(const EmbeddedCluster&) = delete;
  EmbeddedCluster& operator=(const EmbeddedCluster&) = delete;

  // What clients dial.
  const std::string& target() const { return target_; }
  // The model is loaded, by all ranks where there are several: requests start at once.
  bool ready() const { return coordinator_->ready(); }
  // Why there is no cache although one was wanted; empty: there is.
  const std::string& cache_warning() const { return cache_warning_; }

  // Takes no new requests, waits `grace` for those under way, stops all.
  void Shutdown(absl::Duration grace);

 private:
  EmbeddedCluster() = default;

  absl::Status StartCache(const Config& config);
  absl::Status StartWorkers(const Config& config, const Progress& progress);

  std::string sockets_;  // folder
  std::string target_;
  std::string cache_address_;
  std::string cache_warning_;
  std::unique_ptr<CacheServer> cache_;
  std::unique_ptr<CoordinatorServer> coordinator_;
  std::vector<std::unique_ptr<WorkerServer>> workers_;
};

}  // namespace troupe

#endif  // TROUPE_CLI_EMBEDDED_CLUSTER_H_
