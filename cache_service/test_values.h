// Ids and contents that tests and benches of the cache derive from a number. Pure functions.

#ifndef TROUPE_CACHE_SERVICE_TEST_VALUES_H_
#define TROUPE_CACHE_SERVICE_TEST_VALUES_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>

#include "cache_service/value_id.h"

namespace troupe {

// `count` bytes that look random and follow from `seed`.
inline std::string TestBytes(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string bytes(count, '\0');
  for (size_t at = 0; at < count; at += sizeof(uint64_t)) {
    const uint64_t word = random();
    std::memcpy(&bytes[at], &word, std::min(sizeof(word), count - at));
  }
  return bytes;
}

inline ValueId TestId(uint64_t number) {
  return {.identity = std::string(32, 'm'),
          .tenant_namespace = "tenant",
          .block_key = TestBytes(32, number + 1),
          .group = static_cast<uint32_t>(number % 4)};
}

// Of one to four parts.
inline std::string TestValue(uint64_t number) {
  return TestBytes(1 + (number * 7919 * 113) % (900 << 10), number);
}

}  // namespace troupe

#endif  // TROUPE_CACHE_SERVICE_TEST_VALUES_H_
