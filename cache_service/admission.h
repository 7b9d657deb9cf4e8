// Decides whether a value may be stored, and keeps count of what is.
//
// The decision is an interface because more decides later: eviction and tiers belong here. A policy
// that evicts will be told of reads (one method more), and its answer will name the values to
// delete first; the ledger hands those to the store, which already has Delete. Stores do not change
// for it, and neither does the service.
//
// Thread model: policies are immutable or lock for themselves; CapacityLedger is thread-safe.
// Invariants: used_bytes never exceeds what the policy admitted; a reservation that is dropped
// without Commit gives its bytes back.

#ifndef TROUPE_CACHE_SERVICE_ADMISSION_H_
#define TROUPE_CACHE_SERVICE_ADMISSION_H_

#include <cstdint>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cache_service/value_id.h"

namespace troupe {

struct StoreUsage {
  uint64_t used_bytes = 0;  // of stored records, including those being written now
  uint64_t values = 0;
};

class AdmissionPolicy {
 public:
  virtual ~AdmissionPolicy() = default;

  // A pure function of its arguments. `stored_bytes`: of the value's records. RESOURCE_EXHAUSTED
  // when there is no room.
  virtual absl::Status Admit(const ValueId& id, uint64_t stored_bytes,
                             const StoreUsage& usage) const = 0;

  virtual uint64_t capacity_bytes() const = 0;
};

// Admits what fits, refuses the rest.
std::unique_ptr<AdmissionPolicy> MakeCapacityLimit(uint64_t capacity_bytes);

class CapacityLedger {
 public:
  // Room for one value that is being written.
  class Reservation {
   public:
    Reservation(Reservation&& other) noexcept;
    Reservation& operator=(Reservation&&) = delete;
    ~Reservation();
    // The value is stored: its bytes stay counted until Remove.
    void Commit();

   private:
    friend class CapacityLedger;
    Reservation(CapacityLedger* ledger, uint64_t stored_bytes);

    CapacityLedger* ledger_;  // null once it has nothing to give back
    uint64_t stored_bytes_;
  };

  explicit CapacityLedger(std::unique_ptr<AdmissionPolicy> policy);

  // The policy's refusal is passed on.
  absl::StatusOr<Reservation> Reserve(const ValueId& id, uint64_t stored_bytes);

  // Counts a value found at start.
  void AddExisting(uint64_t stored_bytes);
  void Remove(uint64_t stored_bytes);

  StoreUsage usage() const;
  uint64_t capacity_bytes() const { return policy_->capacity_bytes(); }

 private:
  const std::unique_ptr<AdmissionPolicy> policy_;
  mutable std::mutex mutex_;
  StoreUsage usage_;  // guarded by mutex_
};

}  // namespace troupe

#endif  // TROUPE_CACHE_SERVICE_ADMISSION_H_
