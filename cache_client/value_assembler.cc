#include "cache_client/value_assembler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cache_client/cache_limits.h"
#include "cache_client/crc32c.h"

namespace troupe {

absl::Status ValueAssembler::Begin(uint64_t value_bytes, uint32_t crc32c) {
  bytes_.clear();
  value_bytes_ = 0;
  if (value_bytes == 0 || value_bytes > kCacheMaxValueBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("value_bytes: found ", value_bytes, ", wanted 1 to ", kCacheMaxValueBytes));
  }
  value_bytes_ = value_bytes;
  crc32c_ = crc32c;
  crc32c_received_ = 0;
  return absl::OkStatus();
}

absl::Status ValueAssembler::Append(uint64_t offset, std::string_view data) {
  if (offset != bytes_.size()) {
    return absl::InvalidArgumentError(absl::StrCat("offset: found ", offset, ", wanted ",
                                                   bytes_.size(), ", where the value's ",
                                                   "last chunk ended"));
  }
  const uint64_t missing = value_bytes_ - bytes_.size();
  const uint64_t most = std::min<uint64_t>(missing, kCacheMaxChunkBytes);
  if (data.empty() || data.size() > most) {
    return absl::InvalidArgumentError(
        absl::StrCat("data: found ", data.size(), " bytes, wanted 1 to ", most));
  }
  // Doubling from what is already here bounds what a false value_bytes can make us allocate.
  if (bytes_.capacity() < bytes_.size() + data.size()) {
    const uint64_t doubled = std::max<uint64_t>(2 * (bytes_.size() + data.size()), 4096);
    bytes_.reserve(std::min(value_bytes_, doubled));
  }
  bytes_.append(data);
  crc32c_received_ = Crc32c(data, crc32c_received_);
  return absl::OkStatus();
}

absl::StatusOr<std::string> ValueAssembler::Take() {
  value_bytes_ = 0;
  if (crc32c_received_ != crc32c_) {
    bytes_.clear();
    return absl::DataLossError(absl::StrCat("crc32c: found ", crc32c_received_, ", wanted ",
                                            crc32c_, "; the value was damaged on its way"));
  }
  return std::exchange(bytes_, std::string());
}

}  // namespace troupe
