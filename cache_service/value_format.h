// How a value lies in the store: records of at most 256 KiB, each of which says whose it is and
// carries a checksum over all of itself.
//
// A value is one or more part records, all of nearly the same size, and one manifest record. The
// manifest is written last, so a value is either complete or not there. Every header field follows
// from the value's id, size and checksum, so decoding is comparing: a record of another key,
// another tenant, another model, another part or another put of the same key is refused like a
// damaged one.
//
//   magic u32 | kind u8 | namespace bytes u8 | zero u16 | group u32 | part u32 | part count u32 |
//   value crc32c u32 | value bytes u64 | payload bytes u64 | identity 32 | block key 32 | namespace
//   | payload | crc32c u32 over everything before it                       (little-endian)
//
// Thread model: pure functions. Errors: DATA_LOSS for every record that is not exactly what was
// written; no input crashes or reads out of bounds.

#ifndef TROUPE_CACHE_SERVICE_VALUE_FORMAT_H_
#define TROUPE_CACHE_SERVICE_VALUE_FORMAT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "cache_service/value_id.h"

namespace troupe {

inline constexpr size_t kMaxRecordBytes = 256 << 10;

// What one put stored; the same key put again later may differ.
struct ValueInfo {
  uint64_t value_bytes = 0;  // at least 1
  uint32_t crc32c = 0;       // of the whole value

  friend bool operator==(const ValueInfo&, const ValueInfo&) = default;
};

struct PartRange {
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

uint32_t PartCountOf(uint64_t value_bytes);
// `part` is less than PartCountOf(value_bytes).
PartRange PartRangeOf(uint64_t value_bytes, uint32_t part);
// Bytes of all records of one value together.
uint64_t StoredBytesOf(const ValueId& id, uint64_t value_bytes);

std::string EncodeManifest(const ValueId& id, const ValueInfo& info);
absl::StatusOr<ValueInfo> DecodeManifest(const ValueId& id, std::string_view record);

// `value` is the whole value; the record holds its part number `part`.
std::string EncodePart(const ValueId& id, const ValueInfo& info, uint32_t part,
                       std::string_view value);
// The payload, inside `record`.
absl::StatusOr<std::string_view> DecodePart(const ValueId& id, const ValueInfo& info, uint32_t part,
                                            std::string_view record);

// Keys under which records lie. Those of one tenant stand together, then those of one model.
std::string ManifestKeyOf(const ValueId& id);
absl::StatusOr<ValueId> ParseManifestKey(std::string_view key);
std::string PartKeyOf(const ValueId& id, uint32_t part);

}  // namespace troupe

#endif  // TROUPE_CACHE_SERVICE_VALUE_FORMAT_H_
