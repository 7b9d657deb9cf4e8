#include "cache_service/value_format.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "cache_client/cache_limits.h"
#include "cache_client/crc32c.h"

namespace troupe {
namespace {

constexpr uint32_t kMagic = 0x31564b54;  // "TKV1"
constexpr size_t kFixedHeaderBytes = 104;
constexpr size_t kCrcOffset = 20;
constexpr size_t kValueBytesOffset = 24;
constexpr size_t kTrailerBytes = sizeof(uint32_t);
// The same for every tenant, so that part counts follow from the value's size alone.
constexpr size_t kMaxPayloadBytes =
    kMaxRecordBytes - kFixedHeaderBytes - kCacheMaxNamespaceBytes - kTrailerBytes;

enum class Kind : uint8_t { kManifest = 1, kPart = 2 };

template <typename T>
void AppendLittleEndian(T value, std::string* out) {
  for (size_t i = 0; i < sizeof(T); ++i) out->push_back(static_cast<char>(value >> (8 * i)));
}

template <typename T>
T ReadLittleEndian(std::string_view bytes) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value |= static_cast<T>(static_cast<unsigned char>(bytes[i])) << (8 * i);
  }
  return value;
}

// Big-endian, so that keys sort by number.
void AppendBigEndian(uint32_t value, std::string* out) {
  for (int shift = 24; shift >= 0; shift -= 8) out->push_back(static_cast<char>(value >> shift));
}

std::string EncodeHeader(Kind kind, const ValueId& id, const ValueInfo& info, uint32_t part,
                         uint64_t payload_bytes, size_t capacity) {
  DCHECK_EQ(id.identity.size(), kCacheIdentityBytes);
  DCHECK_EQ(id.block_key.size(), kCacheBlockKeyBytes);
  DCHECK_LE(id.tenant_namespace.size(), kCacheMaxNamespaceBytes);
  std::string out;
  out.reserve(capacity);
  AppendLittleEndian(kMagic, &out);
  out.push_back(static_cast<char>(kind));
  out.push_back(static_cast<char>(id.tenant_namespace.size()));
  AppendLittleEndian<uint16_t>(0, &out);
  AppendLittleEndian(id.group, &out);
  AppendLittleEndian(part, &out);
  AppendLittleEndian(PartCountOf(info.value_bytes), &out);
  AppendLittleEndian(info.crc32c, &out);
  AppendLittleEndian(info.value_bytes, &out);
  AppendLittleEndian(payload_bytes, &out);
  out += id.identity;
  out += id.block_key;
  out += id.tenant_namespace;
  return out;
}

size_t OverheadOf(const ValueId& id) {
  return kFixedHeaderBytes + id.tenant_namespace.size() + kTrailerBytes;
}

absl::Status Damaged(const char* what) {
  return absl::DataLossError(absl::StrCat(what, "; the value is treated as missing"));
}

}  // namespace

uint32_t PartCountOf(uint64_t value_bytes) {
  return static_cast<uint32_t>((value_bytes + kMaxPayloadBytes - 1) / kMaxPayloadBytes);
}

PartRange PartRangeOf(uint64_t value_bytes, uint32_t part) {
  const uint64_t part_count = PartCountOf(value_bytes);
  DCHECK_LT(part, part_count);
  // Even parts: a value just over the limit does not leave a sliver behind.
  const uint64_t part_bytes = (value_bytes + part_count - 1) / part_count;
  const uint64_t offset = part * part_bytes;
  return {.offset = offset, .bytes = std::min(part_bytes, value_bytes - offset)};
}

uint64_t StoredBytesOf(const ValueId& id, uint64_t value_bytes) {
  return value_bytes + (PartCountOf(value_bytes) + 1) * OverheadOf(id);
}

std::string EncodeManifest(const ValueId& id, const ValueInfo& info) {
  std::string record = EncodeHeader(Kind::kManifest, id, info, 0, 0, OverheadOf(id));
  AppendLittleEndian(Crc32c(record), &record);
  return record;
}

absl::StatusOr<ValueInfo> DecodeManifest(const ValueId& id, std::string_view record) {
  if (record.size() != OverheadOf(id)) return Damaged("manifest of the wrong length");
  const ValueInfo info = {
      .value_bytes = ReadLittleEndian<uint64_t>(record.substr(kValueBytesOffset, 8)),
      .crc32c = ReadLittleEndian<uint32_t>(record.substr(kCrcOffset, 4))};
  if (info.value_bytes == 0 || info.value_bytes > kCacheMaxValueBytes) {
    return Damaged("manifest with an impossible size");
  }
  if (record != EncodeManifest(id, info)) return Damaged("manifest failed its check");
  return info;
}

std::string EncodePart(const ValueId& id, const ValueInfo& info, uint32_t part,
                       std::string_view value) {
  const PartRange range = PartRangeOf(info.value_bytes, part);
  std::string record =
      EncodeHeader(Kind::kPart, id, info, part, range.bytes, OverheadOf(id) + range.bytes);
  record += value.substr(range.offset, range.bytes);
  AppendLittleEndian(Crc32c(record), &record);
  return record;
}

absl::StatusOr<std::string_view> DecodePart(const ValueId& id, const ValueInfo& info, uint32_t part,
                                            std::string_view record) {
  const uint64_t payload_bytes = PartRangeOf(info.value_bytes, part).bytes;
  if (record.size() != OverheadOf(id) + payload_bytes) return Damaged("part of the wrong length");
  const std::string header = EncodeHeader(Kind::kPart, id, info, part, payload_bytes, 0);
  if (!record.starts_with(header)) return Damaged("part with a header that is not its own");
  const std::string_view checked = record.substr(0, record.size() - kTrailerBytes);
  if (Crc32c(checked) != ReadLittleEndian<uint32_t>(record.substr(checked.size()))) {
    return Damaged("part failed its checksum");
  }
  return checked.substr(header.size());
}

std::string ManifestKeyOf(const ValueId& id) {
  std::string key;
  key.reserve(1 + id.tenant_namespace.size() + kCacheIdentityBytes + kCacheBlockKeyBytes + 8);
  key.push_back(static_cast<char>(id.tenant_namespace.size()));
  key += id.tenant_namespace;
  key += id.identity;
  key += id.block_key;
  AppendBigEndian(id.group, &key);
  return key;
}

absl::StatusOr<ValueId> ParseManifestKey(std::string_view key) {
  const size_t namespace_bytes = key.empty() ? 0 : static_cast<unsigned char>(key[0]);
  const size_t wanted = 1 + namespace_bytes + kCacheIdentityBytes + kCacheBlockKeyBytes + 4;
  if (key.size() != wanted || namespace_bytes > kCacheMaxNamespaceBytes) {
    return absl::DataLossError("key of the wrong length");
  }
  const auto take = [&key](size_t bytes) {
    const std::string_view taken = key.substr(0, bytes);
    key.remove_prefix(bytes);
    return std::string(taken);
  };
  take(1);
  ValueId id;
  id.tenant_namespace = take(namespace_bytes);
  id.identity = take(kCacheIdentityBytes);
  id.block_key = take(kCacheBlockKeyBytes);
  for (const char byte : key) id.group = id.group << 8 | static_cast<unsigned char>(byte);
  return id;
}

std::string PartKeyOf(const ValueId& id, uint32_t part) {
  std::string key = ManifestKeyOf(id);
  AppendBigEndian(part, &key);
  return key;
}

}  // namespace troupe
