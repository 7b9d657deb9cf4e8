#include "cache_service/admission.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace troupe {
namespace {

class CapacityLimit final : public AdmissionPolicy {
 public:
  explicit CapacityLimit(uint64_t capacity_bytes) : capacity_bytes_(capacity_bytes) {}

  absl::Status Admit(const ValueId& /*id*/, uint64_t stored_bytes,
                     const StoreUsage& usage) const override {
    const uint64_t room =
        usage.used_bytes < capacity_bytes_ ? capacity_bytes_ - usage.used_bytes : 0;
    if (stored_bytes <= room) return absl::OkStatus();
    return absl::ResourceExhaustedError(
        absl::StrCat("the cache is full: the value needs ", stored_bytes, " bytes, ", room, " of ",
                     capacity_bytes_, " are free; raise capacity_bytes or go on without storing"));
  }

  uint64_t capacity_bytes() const override { return capacity_bytes_; }

 private:
  const uint64_t capacity_bytes_;
};

}  // namespace

std::unique_ptr<AdmissionPolicy> MakeCapacityLimit(uint64_t capacity_bytes) {
  return std::make_unique<CapacityLimit>(capacity_bytes);
}

CapacityLedger::Reservation::Reservation(CapacityLedger* ledger, uint64_t stored_bytes)
    : ledger_(ledger), stored_bytes_(stored_bytes) {}

CapacityLedger::Reservation::Reservation(Reservation&& other) noexcept
    : ledger_(std::exchange(other.ledger_, nullptr)), stored_bytes_(other.stored_bytes_) {}

CapacityLedger::Reservation::~Reservation() {
  if (ledger_ != nullptr) ledger_->Remove(stored_bytes_);
}

void CapacityLedger::Reservation::Commit() { ledger_ = nullptr; }

CapacityLedger::CapacityLedger(std::unique_ptr<AdmissionPolicy> policy)
    : policy_(std::move(policy)) {}

absl::StatusOr<CapacityLedger::Reservation> CapacityLedger::Reserve(const ValueId& id,
                                                                    uint64_t stored_bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  absl::Status status = policy_->Admit(id, stored_bytes, usage_);
  if (!status.ok()) return status;
  usage_.used_bytes += stored_bytes;
  usage_.values += 1;
  return Reservation(this, stored_bytes);
}

void CapacityLedger::AddExisting(uint64_t stored_bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  usage_.used_bytes += stored_bytes;
  usage_.values += 1;
}

void CapacityLedger::Remove(uint64_t stored_bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  CHECK_GE(usage_.used_bytes, stored_bytes);
  usage_.used_bytes -= stored_bytes;
  usage_.values -= 1;
}

StoreUsage CapacityLedger::usage() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return usage_;
}

}  // namespace troupe
