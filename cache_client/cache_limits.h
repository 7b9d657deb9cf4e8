// The limits of troupe.v1.Cache that both ends keep; proto/troupe/v1/cache.proto states them.

#ifndef TROUPE_CACHE_CLIENT_CACHE_LIMITS_H_
#define TROUPE_CACHE_CLIENT_CACHE_LIMITS_H_

#include <cstddef>
#include <cstdint>

namespace troupe {

inline constexpr size_t kCacheIdentityBytes = 32;
inline constexpr size_t kCacheBlockKeyBytes = 32;
inline constexpr size_t kCacheMaxNamespaceBytes = 64;
inline constexpr int kCacheMaxKeysPerRequest = 16384;
inline constexpr size_t kCacheMaxChunkBytes = 256 << 10;
inline constexpr uint64_t kCacheMaxValueBytes = 64 << 20;

}  // namespace troupe

#endif  // TROUPE_CACHE_CLIENT_CACHE_LIMITS_H_
