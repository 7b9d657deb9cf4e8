#include "cli/embedded_cluster.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_util.h"
#include "kernels/host_limits.h"

namespace troupe {
namespace {

absl::StatusOr<std::string> MakeSocketFolder() {
  std::string folder = (std::filesystem::temp_directory_path() / "troupe-XXXXXX").string();
  // mkdtemp makes it for this user alone.
  if (mkdtemp(folder.data()) == nullptr) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot make a folder for sockets, ", folder));
  }
  return folder;
}

// The address that clients of a server on `listen` dial.
std::string DialAddress(const std::string& listen, int port) {
  if (listen.rfind("unix:", 0) == 0) return listen;
  return absl::StrCat(listen.substr(0, listen.rfind(':')), ":", port);
}

}  // namespace

std::string EmbeddedCluster::DefaultDataDir() {
  if (const char* data = std::getenv("XDG_DATA_HOME"); data != nullptr && *data != '\0') {
    return absl::StrCat(data, "/troupe");
  }
  const char* home = std::getenv("HOME");
  return absl::StrCat(home == nullptr ? "/tmp" : home, "/.local/share/troupe");
}

absl::Status EmbeddedCluster::StartCache(const Config& config) {
  CacheServer::Config cache;
  cache.rpc.listen = absl::StrCat("unix:", sockets_, "/cache");
  cache.store.data_dir = config.data_dir + "/cache";
  cache.capacity_bytes = config.cache_bytes;
  std::error_code error;
  std::filesystem::create_directories(cache.store.data_dir, error);
  if (error) {
    return absl::FailedPreconditionError(
        absl::StrCat("data_dir ", config.data_dir, ": cannot be made: ", error.message(),
                     "; choose a folder that can be written (--data-dir)"));
  }
  TROUPE_ASSIGN_OR_RETURN(cache_, CacheServer::Start(cache));
  cache_address_ = cache.rpc.listen;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<EmbeddedCluster>> EmbeddedCluster::Start(const Config& given,
                                                                        const Progress& progress) {
  Config config = given;
  if (config.data_dir.empty()) config.data_dir = DefaultDataDir();
  auto cluster = std::unique_ptr<EmbeddedCluster>(new EmbeddedCluster());
  TROUPE_ASSIGN_OR_RETURN(cluster->sockets_, MakeSocketFolder());
  if (config.use_cache) {
    const absl::Status cache = cluster->StartCache(config);
    if (!cache.ok() && !config.cache_optional) return cache;
    cluster->cache_warning_ = std::string(cache.message());
  }

  CoordinatorServer::Config coordinator;
  coordinator.rpc.listen = config.listen.empty()
                               ? absl::StrCat("unix:", cluster->sockets_, "/coordinator")
                               : config.listen;
  coordinator.model = config.model;
  coordinator.dummy_tokenizer = config.load_format == "dummy";
  coordinator.cache = cluster->cache_address_;
  // Whoever cannot write the folder gets a secret, and so a namespace, for this process alone.
  coordinator.data_dir =
      cluster->cache_ == nullptr ? cluster->sockets_ : config.data_dir + "/coordinator";
  coordinator.fleet = config.fleet;
  coordinator.ranks = config.ranks;
  coordinator.layout = config.layout;
  coordinator.elastic = config.elastic;
  TROUPE_ASSIGN_OR_RETURN(cluster->coordinator_, CoordinatorServer::Start(coordinator));
  cluster->target_ = DialAddress(coordinator.rpc.listen, cluster->coordinator_->port());

  TROUPE_RETURN_IF_ERROR(cluster->StartWorkers(config, progress));
  return cluster;
}

absl::Status EmbeddedCluster::StartWorkers(const Config& config, const Progress& progress) {
  const int ranks =
      config.elastic ? std::max(config.ranks, coordinator_->ranks()) : coordinator_->ranks();
  for (int rank = 0; rank < ranks; ++rank) {
    const bool alone = ranks == 1 && !config.elastic;
    WorkerServer::Config worker;
    worker.rpc.listen = absl::StrCat("unix:", sockets_, "/worker", alone ? "" : absl::StrCat(rank));
    worker.name = alone ? "embedded" : absl::StrCat("embedded", rank);
    worker.coordinator = target_;
    worker.cache = cache_address_;
    worker.sharded = !alone;
    worker.rank = config.rank;
    worker.rank.model = config.model;
    worker.rank.dummy_weights = config.load_format == "dummy";
    worker.rank.mode = config.dtype == "f32" ? ComputeMode::kF32 : ComputeMode::kBf16;
    if (!alone) {
      const int threads = config.rank.threads > 0 ? config.rank.threads : AvailableCores();
      worker.rank.threads = std::max(1, threads / ranks);
      // One GPU a rank.
      if (config.rank.device == "cuda") worker.rank.device = absl::StrCat("cuda:", rank);
    }
    if (config.gate_threshold >= 0) worker.gate_threshold = config.gate_threshold;
    TROUPE_ASSIGN_OR_RETURN(auto started, WorkerServer::Start(worker, progress));
    workers_.push_back(std::move(started));
  }
  return absl::OkStatus();
}

EmbeddedCluster::~EmbeddedCluster() { Shutdown(absl::ZeroDuration()); }

void EmbeddedCluster::Shutdown(absl::Duration grace) {
  if (coordinator_ != nullptr) coordinator_->Shutdown(grace);
  for (const auto& worker : workers_) worker->Shutdown(absl::Seconds(1));
  workers_.clear();
  coordinator_.reset();
  if (cache_ != nullptr) cache_->Shutdown(absl::Seconds(1));
  cache_.reset();
  std::error_code ignored;
  if (!sockets_.empty()) std::filesystem::remove_all(std::exchange(sockets_, ""), ignored);
}

}  // namespace troupe
