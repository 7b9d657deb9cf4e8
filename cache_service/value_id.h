// The name of one cached value. Plain data.

#ifndef TROUPE_CACHE_SERVICE_VALUE_ID_H_
#define TROUPE_CACHE_SERVICE_VALUE_ID_H_

#include <compare>
#include <cstdint>
#include <string>

namespace troupe {

// Two values are the same only when all four agree. Lengths are what cache_client/cache_limits.h
// says; whoever takes an id from outside checks them.
struct ValueId {
  std::string identity;          // of the model: 32 bytes
  std::string tenant_namespace;  // at most 64 bytes
  std::string block_key;         // 32 bytes
  uint32_t group = 0;            // which kind of state

  friend auto operator<=>(const ValueId&,
                          const ValueId&) = default;  // NOLINT(modernize-use-nullptr)
};

}  // namespace troupe

#endif  // TROUPE_CACHE_SERVICE_VALUE_ID_H_
