// Puts one value together from its chunks, and lets nothing out that was not checked.
//
// Thread model: one thread at a time. Ownership: owns the bytes until Take.
// Invariants: chunks are taken only in order and without gaps; memory grows with what has arrived,
// not with what a peer announced.

#ifndef TROUPE_CACHE_CLIENT_VALUE_ASSEMBLER_H_
#define TROUPE_CACHE_CLIENT_VALUE_ASSEMBLER_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace troupe {

class ValueAssembler {
 public:
  // Starts a value, and forgets the one before. INVALID_ARGUMENT names value_bytes when it is 0 or
  // more than kCacheMaxValueBytes.
  absl::Status Begin(uint64_t value_bytes, uint32_t crc32c);

  // INVALID_ARGUMENT names offset or data when the chunk does not continue the value.
  absl::Status Append(uint64_t offset, std::string_view data);

  // Between Begin and Take.
  bool active() const { return value_bytes_ > 0; }
  bool complete() const { return active() && bytes_.size() == value_bytes_; }

  uint64_t value_bytes() const { return value_bytes_; }
  uint64_t bytes_received() const { return bytes_.size(); }
  uint32_t crc32c() const { return crc32c_; }

  // The complete value; DATA_LOSS when its checksum is not the announced one.
  absl::StatusOr<std::string> Take();

 private:
  std::string bytes_;
  uint64_t value_bytes_ = 0;
  uint32_t crc32c_ = 0;
  uint32_t crc32c_received_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_CACHE_CLIENT_VALUE_ASSEMBLER_H_
