// troupe.v1.Cache over gRPC: checks requests, moves bytes in chunks, and leaves the rest to a
// Store.
//
// Thread model: thread-safe; gRPC calls it from its own threads. Those never wait for the disk:
// each read or write of a value is one task on `executor`, whose threads may block. A call has at
// most one task or one message under way, so a slow peer holds one value in memory, and no thread.
// Ownership: `store` and `executor` belong to the caller and outlive the service; the gRPC server
// is shut down first, and the executor still runs tasks until then. Errors: INVALID_ARGUMENT names
// the field; RESOURCE_EXHAUSTED: the store is full, or too much is being put at once; UNAVAILABLE:
// the executor is shut down.

#ifndef TROUPE_CACHE_SERVICE_CACHE_SERVICE_H_
#define TROUPE_CACHE_SERVICE_CACHE_SERVICE_H_

#include <atomic>
#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "base/executor.h"
#include "cache_service/store.h"
#include "troupe/v1/cache.grpc.pb.h"

namespace troupe {

class CacheService final : public v1::Cache::CallbackService {
 public:
  struct Config {
    // Of all values that are arriving now, as announced; more is refused.
    uint64_t max_arriving_bytes = 512 << 20;
  };

  CacheService(const Config& config, Store* store, Executor* executor);

  grpc::ServerUnaryReactor* Stat(grpc::CallbackServerContext* context,
                                 const v1::StatRequest* request, v1::StatReply* reply) override;
  grpc::ServerWriteReactor<v1::ValueChunk>* Get(grpc::CallbackServerContext* context,
                                                const v1::GetRequest* request) override;
  grpc::ServerReadReactor<v1::PutChunk>* Put(grpc::CallbackServerContext* context,
                                             v1::PutReply* reply) override;
  grpc::ServerUnaryReactor* Info(grpc::CallbackServerContext* context,
                                 const v1::InfoRequest* request, v1::InfoReply* reply) override;

 private:
  class GetCall;
  class PutCall;

  // RESOURCE_EXHAUSTED when the values arriving now leave no room; else Release gives it back.
  absl::Status ReserveArrival(uint64_t value_bytes);
  void ReleaseArrival(uint64_t value_bytes);

  const Config config_;
  Store* const store_;
  Executor* const executor_;
  std::atomic<uint64_t> arriving_bytes_{0};
};

}  // namespace troupe

#endif  // TROUPE_CACHE_SERVICE_CACHE_SERVICE_H_
