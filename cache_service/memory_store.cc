#include "cache_service/memory_store.h"

#include <utility>

#include "cache_service/value_format.h"

namespace troupe {

MemoryStore::MemoryStore(std::unique_ptr<AdmissionPolicy> policy) : ledger_(std::move(policy)) {}

absl::StatusOr<StoredValue> MemoryStore::Get(const ValueId& id) {
  absl::StatusOr<StoredValue> result = Find(id);
  counters_.CountGet(result);
  return result;
}

absl::StatusOr<StoredValue> MemoryStore::Find(const ValueId& id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = values_.find(id);
  if (found == values_.end()) return absl::NotFoundError("no such value");
  return found->second;
}

absl::StatusOr<Store::PutOutcome> MemoryStore::Put(const ValueId& id, std::string_view bytes,
                                                   uint32_t crc32c) {
  absl::StatusOr<PutOutcome> result = Insert(id, bytes, crc32c);
  counters_.CountPut(result);
  return result;
}

absl::StatusOr<Store::PutOutcome> MemoryStore::Insert(const ValueId& id, std::string_view bytes,
                                                      uint32_t crc32c) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (values_.contains(id)) return PutOutcome::kExisting;
  auto reservation = ledger_.Reserve(id, StoredBytesOf(id, bytes.size()));
  if (!reservation.ok()) return reservation.status();
  values_[id] = {.bytes = std::string(bytes), .crc32c = crc32c};
  reservation->Commit();
  return PutOutcome::kStored;
}

bool MemoryStore::Contains(const ValueId& id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return values_.contains(id);
}

absl::Status MemoryStore::Delete(const ValueId& id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = values_.find(id);
  if (found == values_.end()) return absl::OkStatus();
  ledger_.Remove(StoredBytesOf(id, found->second.bytes.size()));
  values_.erase(found);
  return absl::OkStatus();
}

StoreStats MemoryStore::stats() const {
  const StoreUsage usage = ledger_.usage();
  StoreStats stats = {.capacity_bytes = ledger_.capacity_bytes(),
                      .used_bytes = usage.used_bytes,
                      .values = usage.values};
  counters_.AddTo(&stats);
  return stats;
}

}  // namespace troupe
