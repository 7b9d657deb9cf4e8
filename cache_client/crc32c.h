// CRC-32C (Castagnoli), which guards every cached value on the wire and on disk. Pure function;
// uses the CPU's instructions where it has them.

#ifndef TROUPE_CACHE_CLIENT_CRC32C_H_
#define TROUPE_CACHE_CLIENT_CRC32C_H_

#include <cstdint>
#include <string_view>

namespace troupe {

// The checksum of `bytes`; with `before`, that of whatever has the checksum `before` and then
// `bytes`.
uint32_t Crc32c(std::string_view bytes, uint32_t before = 0);

}  // namespace troupe

#endif  // TROUPE_CACHE_CLIENT_CRC32C_H_
