#include "cache_client/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>
#include <cstddef>

namespace troupe {

uint32_t Crc32c(std::string_view bytes, uint32_t before) {
  constexpr size_t kMaxCall = size_t{1} << 30;  // the library counts in int
  uint32_t state = ~before;
  while (!bytes.empty()) {
    const size_t count = std::min(bytes.size(), kMaxCall);
    // The library does not write; its parameter only lacks the const.
    auto* data = reinterpret_cast<unsigned char*>(const_cast<char*>(bytes.data()));
    state = crc32_iscsi(data, static_cast<int>(count), state);
    bytes.remove_prefix(count);
  }
  return ~state;
}

}  // namespace troupe
