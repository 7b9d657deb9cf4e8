// A Store in memory, for tests and for programs that need no persistence. What it holds is gone
// with it. Thread model and errors: see store.h.

#ifndef TROUPE_CACHE_SERVICE_MEMORY_STORE_H_
#define TROUPE_CACHE_SERVICE_MEMORY_STORE_H_

#include <map>
#include <memory>
#include <mutex>

#include "cache_service/admission.h"
#include "cache_service/store.h"

namespace troupe {

class MemoryStore final : public Store {
 public:
  explicit MemoryStore(std::unique_ptr<AdmissionPolicy> policy);

  absl::StatusOr<StoredValue> Get(const ValueId& id) override;
  absl::StatusOr<PutOutcome> Put(const ValueId& id, std::string_view bytes,
                                 uint32_t crc32c) override;
  bool Contains(const ValueId& id) override;
  absl::Status Delete(const ValueId& id) override;
  StoreStats stats() const override;

 private:
  absl::StatusOr<StoredValue> Find(const ValueId& id);
  absl::StatusOr<PutOutcome> Insert(const ValueId& id, std::string_view bytes, uint32_t crc32c);

  CapacityLedger ledger_;
  StoreCounters counters_;
  mutable std::mutex mutex_;
  std::map<ValueId, StoredValue> values_;  // guarded by mutex_
};

}  // namespace troupe

#endif  // TROUPE_CACHE_SERVICE_MEMORY_STORE_H_
