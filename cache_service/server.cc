#include "cache_service/server.h"

#include <utility>

#include "base/status_util.h"
#include "cache_service/admission.h"

namespace troupe {

absl::StatusOr<std::unique_ptr<CacheServer>> CacheServer::Start(const Config& config) {
  TROUPE_ASSIGN_OR_RETURN(
      auto store, RocksDbStore::Open(config.store, MakeCapacityLimit(config.capacity_bytes)));
  std::unique_ptr<CacheServer> server(new CacheServer(config, std::move(store)));
  TROUPE_ASSIGN_OR_RETURN(server->rpc_, RpcServer::Start(config.rpc, {&server->service_}));
  server->rpc_->SetReady(v1::Cache::service_full_name(), true);
  return server;
}

CacheServer::CacheServer(const Config& config, std::unique_ptr<Store> store)
    : store_(std::move(store)),
      io_({.name = "cache-io", .thread_count = config.io_threads}),
      service_(config.service, store_.get(), &io_) {}

CacheServer::~CacheServer() { Shutdown(absl::ZeroDuration()); }

void CacheServer::Shutdown(absl::Duration grace) {
  if (rpc_ != nullptr) rpc_->Shutdown(grace);
}

}  // namespace troupe
