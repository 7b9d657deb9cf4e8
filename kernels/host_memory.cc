#include "kernels/host_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/host_limits.h"

namespace troupe {
namespace {

constexpr int64_t kHugePageBytes = int64_t{2} << 20;

absl::Status Exhausted(int64_t bytes) {
  return absl::ResourceExhaustedError(
      absl::StrCat("wanted ", bytes, " bytes of memory, ", AvailableMemoryBytes(),
                   " are free; make the KV cache or the batch smaller"));
}

absl::StatusOr<std::shared_ptr<std::byte>> AllocateMapped(int64_t bytes) {
  if (bytes > AvailableMemoryBytes()) return Exhausted(bytes);
  // Mapped with a huge page to spare, so that the piece used can start on one.
  const size_t mapped_bytes = static_cast<size_t>(bytes + kHugePageBytes);
  void* mapping =
      mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) return Exhausted(bytes);
  const uintptr_t start = reinterpret_cast<uintptr_t>(mapping);
  const uintptr_t aligned = (start + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
  madvise(reinterpret_cast<void*>(aligned), static_cast<size_t>(bytes), MADV_HUGEPAGE);
  return std::shared_ptr<std::byte>(
      reinterpret_cast<std::byte*>(aligned),
      [mapping, mapped_bytes](std::byte*) { munmap(mapping, mapped_bytes); });
}

}  // namespace

absl::StatusOr<std::shared_ptr<std::byte>> AllocateHostMemory(int64_t bytes) {
  bytes = (std::max<int64_t>(bytes, 1) + kHostAlignment - 1) / kHostAlignment * kHostAlignment;
  if (bytes >= kHugePageBytes) return AllocateMapped(bytes);
  void* memory = std::aligned_alloc(kHostAlignment, static_cast<size_t>(bytes));
  if (memory == nullptr) return Exhausted(bytes);
  std::memset(memory, 0, static_cast<size_t>(bytes));
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(memory),
                                    [](std::byte* p) { std::free(p); });
}

}  // namespace troupe
