// The cache service as one object: store, threads and gRPC server. `troupe-cache` runs one; other
// programs and tests may hold one, or several with different folders, in their own process.
//
// Health: "" as long as the process serves, "troupe.v1.Cache" once the store is open.
//
// Thread model: Start and Shutdown by one thread; the rest is thread-safe.
// Ownership: owns all that it runs.

#ifndef TROUPE_CACHE_SERVICE_SERVER_H_
#define TROUPE_CACHE_SERVICE_SERVER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/thread_executor.h"
#include "cache_service/cache_service.h"
#include "cache_service/rocksdb_store.h"
#include "cache_service/store.h"
#include "rpc/rpc_server.h"

namespace troupe {

class CacheServer {
 public:
  struct Config {
    RpcServer::Config rpc;
    RocksDbStore::Config store;
    CacheService::Config service;
    uint64_t capacity_bytes = uint64_t{10} << 30;
    int io_threads = 4;  // reads and writes of the disk that may be under way at once
  };

  // Opens the store and serves. Errors are those of RocksDbStore::Open and RpcServer::Start.
  static absl::StatusOr<std::unique_ptr<CacheServer>> Start(const Config& config);

  // Shuts down at once if nobody has.
  ~CacheServer();
  CacheServer(const CacheServer&) = delete;
  CacheServer& operator=(const CacheServer&) = delete;

  int port() const { return rpc_->port(); }

  // No call may start on it once Shutdown has begun.
  std::shared_ptr<grpc::Channel> InProcessChannel() { return rpc_->InProcessChannel(); }

  StoreStats stats() const { return store_->stats(); }

  // Takes no new calls, waits `grace` for those under way, cancels the rest, closes the store's
  // files on destruction.
  void Shutdown(absl::Duration grace);

 private:
  CacheServer(const Config& config, std::unique_ptr<Store> store);

  const std::unique_ptr<Store> store_;
  ThreadExecutor io_;
  CacheService service_;
  std::unique_ptr<RpcServer> rpc_;
};

}  // namespace troupe

#endif  // TROUPE_CACHE_SERVICE_SERVER_H_
