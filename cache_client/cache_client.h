// Client of troupe.v1.Cache, for workers and the coordinator.
//
// Every call returns at once and answers through callbacks. The cache is never the truth: a caller
// that gets an error goes on as for a miss. Values are checked end to end: their CRC-32C travels
// with them, and what arrives damaged is never handed out.
//
// Thread model: thread-safe. Callbacks run on gRPC's threads, one call's callbacks one after
// another; they must not block (hand the work on), and must not destroy the client. They may start
// new calls. Every call runs its `done` exactly once, as the call's last callback. Ownership: a
// call owns its arguments. The destructor cancels the calls under way (their `done` gets CANCELLED)
// and returns when the last callback has; nobody may start a call meanwhile. Errors: UNAVAILABLE
// when the service cannot be reached (the connection is made again by itself, on a later call),
// DEADLINE_EXCEEDED, INVALID_ARGUMENT for malformed keys.

#ifndef TROUPE_CACHE_CLIENT_CACHE_CLIENT_H_
#define TROUPE_CACHE_CLIENT_CACHE_CLIENT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"

namespace grpc {
class Channel;
}  // namespace grpc

namespace troupe {

class CacheClient {
 public:
  struct Config {
    int64_t stat_timeout_ms = 2000;
    int64_t transfer_timeout_ms = 30000;  // of a whole Get or Put
  };

  struct Key {
    std::string block_key;         // 32 bytes
    std::string tenant_namespace;  // at most 64 bytes
    uint32_t group = 0;
  };

  struct Value {
    Key key;
    std::string bytes;  // 1 byte to 64 MiB
  };

  struct PutCounts {
    int stored = 0;
    int existing = 0;
  };

  struct Info {
    uint64_t capacity_bytes = 0;
    uint64_t used_bytes = 0;
    uint64_t values = 0;
    uint64_t hits = 0;
    uint64_t misses = 0;
    uint64_t damaged = 0;
    uint64_t stored = 0;
    uint64_t existing = 0;
    uint64_t refused = 0;
  };

  using StatDone = absl::AnyInvocable<void(absl::StatusOr<std::vector<bool>> found)>;
  // null: a miss. DATA_LOSS: the value was damaged on its way; treat it as a miss.
  using OnValue =
      absl::AnyInvocable<void(size_t index, absl::StatusOr<std::optional<std::string>> value)>;
  using Done = absl::AnyInvocable<void(absl::Status status)>;
  using PutDone = absl::AnyInvocable<void(absl::StatusOr<PutCounts> counts)>;
  using InfoDone = absl::AnyInvocable<void(absl::StatusOr<Info> info)>;

  // `address` as gRPC names it, "host:port"; connects on the first call.
  static std::unique_ptr<CacheClient> Connect(const std::string& address, const Config& config);

  // The channel may be one inside the process.
  CacheClient(std::shared_ptr<grpc::Channel> channel, const Config& config);
  ~CacheClient();
  CacheClient(const CacheClient&) = delete;
  CacheClient& operator=(const CacheClient&) = delete;

  // Which values exist: one answer a key, in order. At most 16384 keys. `identity`: 32 bytes.
  void Stat(const std::string& identity, const std::vector<Key>& keys, StatDone done);

  // Calls `on_value` for keys 0, 1, ... in order, each once; an error ends the call early, and the
  // keys that were not answered by then are not. At most 16384 keys.
  void Get(const std::string& identity, const std::vector<Key>& keys, OnValue on_value, Done done);

  // Stores the values in order. RESOURCE_EXHAUSTED: the cache is full. After an error the values
  // before the one that failed may be stored.
  void Put(const std::string& identity, std::vector<Value> values, PutDone done);

  void GetInfo(InfoDone done);

 private:
  class Impl;

  const std::unique_ptr<Impl> impl_;
};

}  // namespace troupe

#endif  // TROUPE_CACHE_CLIENT_CACHE_CLIENT_H_
