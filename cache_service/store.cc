#include "cache_service/store.h"

namespace troupe {

void StoreCounters::CountGet(const absl::StatusOr<StoredValue>& result) {
  if (result.ok()) {
    hits_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  misses_.fetch_add(1, std::memory_order_relaxed);
  if (result.status().code() == absl::StatusCode::kDataLoss) {
    damaged_.fetch_add(1, std::memory_order_relaxed);
  }
}

void StoreCounters::CountPut(const absl::StatusOr<Store::PutOutcome>& result) {
  if (result.ok()) {
    const bool stored = *result == Store::PutOutcome::kStored;
    (stored ? stored_ : existing_).fetch_add(1, std::memory_order_relaxed);
  } else if (result.status().code() == absl::StatusCode::kResourceExhausted) {
    refused_.fetch_add(1, std::memory_order_relaxed);
  }
}

void StoreCounters::AddTo(StoreStats* stats) const {
  stats->hits += hits_.load(std::memory_order_relaxed);
  stats->misses += misses_.load(std::memory_order_relaxed);
  stats->damaged += damaged_.load(std::memory_order_relaxed);
  stats->stored += stored_.load(std::memory_order_relaxed);
  stats->existing += existing_.load(std::memory_order_relaxed);
  stats->refused += refused_.load(std::memory_order_relaxed);
}

}  // namespace troupe
