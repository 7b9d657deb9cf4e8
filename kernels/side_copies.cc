#include "kernels/side_copies.h"

#include <cstring>

#include "kernels/host_memory.h"

namespace troupe {

absl::StatusOr<std::shared_ptr<std::byte>> SideCopies::AllocateHost(int64_t bytes) {
  return AllocateHostMemory(bytes);
}

absl::Status SideCopies::Reserve(int64_t /*largest_bytes*/) { return absl::OkStatus(); }

void SideCopies::Out(absl::Span<const SideCopy> copies, Reuse /*reuse*/) {
  for (const SideCopy& copy : copies) {
    std::memcpy(copy.host, copy.device, static_cast<size_t>(copy.bytes));
  }
}

void SideCopies::In(absl::Span<const SideCopy> copies) {
  for (const SideCopy& copy : copies) {
    std::memcpy(copy.device, copy.host, static_cast<size_t>(copy.bytes));
  }
}

bool SideCopies::WhenDone(absl::AnyInvocable<void()> /*done*/) { return false; }

}  // namespace troupe
