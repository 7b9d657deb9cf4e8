// Where cached values are kept. Two implementations: RocksDB (rocksdb_store.h), and memory
// (memory_store.h) for tests.
//
// Thread model: thread-safe. Calls block on the disk; the service runs them on threads of their
// own. Invariants: Get gives the bytes that Put was given, or no bytes. A value that fails a check
// on read is deleted and counted, and reads as missing from then on.

#ifndef TROUPE_CACHE_SERVICE_STORE_H_
#define TROUPE_CACHE_SERVICE_STORE_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cache_service/value_id.h"

namespace troupe {

// What a store holds, and what it has done since it was opened.
struct StoreStats {
  uint64_t capacity_bytes = 0;
  uint64_t used_bytes = 0;
  uint64_t values = 0;
  uint64_t hits = 0;
  uint64_t misses = 0;   // damaged values are counted here as well
  uint64_t damaged = 0;  // values that failed a check on read and were deleted
  uint64_t stored = 0;
  uint64_t existing = 0;
  uint64_t refused = 0;  // puts without room
};

struct StoredValue {
  std::string bytes;
  uint32_t crc32c = 0;  // of `bytes`, as the writer computed it
};

class Store {
 public:
  enum class PutOutcome { kStored, kExisting };

  virtual ~Store() = default;

  // NOT_FOUND: not there. DATA_LOSS: it was, and failed a check; it is deleted now. For a caller
  // both are a miss.
  virtual absl::StatusOr<StoredValue> Get(const ValueId& id) = 0;

  // `crc32c` is the checksum of `bytes`, which the caller has verified. RESOURCE_EXHAUSTED: no room
  // by the admission policy, or on the disk.
  virtual absl::StatusOr<PutOutcome> Put(const ValueId& id, std::string_view bytes,
                                         uint32_t crc32c) = 0;

  // Whether Get would find the value, short of reading it. Not counted as a hit or a miss.
  virtual bool Contains(const ValueId& id) = 0;

  // Deleting what is not there is a success.
  virtual absl::Status Delete(const ValueId& id) = 0;

  virtual StoreStats stats() const = 0;
};

// The counters of StoreStats that every store keeps alike. Thread-safe.
class StoreCounters {
 public:
  void CountGet(const absl::StatusOr<StoredValue>& result);
  void CountPut(const absl::StatusOr<Store::PutOutcome>& result);
  void AddTo(StoreStats* stats) const;

 private:
  std::atomic<uint64_t> hits_{0};
  std::atomic<uint64_t> misses_{0};
  std::atomic<uint64_t> damaged_{0};
  std::atomic<uint64_t> stored_{0};
  std::atomic<uint64_t> existing_{0};
  std::atomic<uint64_t> refused_{0};
};

}  // namespace troupe

#endif  // TROUPE_CACHE_SERVICE_STORE_H_
