// What a set of files is, as one digest: a SHA-256 tree over fixed-size chunks, so that many
// threads hash one file and the digest depends on the bytes alone.
//
//   leaf = SHA-256(chunk of 4 MiB);  file = SHA-256(name, 0, size, leaves);  identity =
//   SHA-256(files)
// with sizes and counts as 64-bit little-endian numbers.
//
// Thread model: a pure function; it starts and joins its own threads.
#ifndef TROUPE_MODEL_IDENTITY_H_
#define TROUPE_MODEL_IDENTITY_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace troupe {

struct IdentityFile {
  std::string name;  // part of the digest
  std::span<const std::byte> bytes;
};

inline constexpr size_t kIdentityChunkBytes = size_t{4} << 20;

// `progress` may be null; calls come from the hashing threads, one at a time, with bytes_done
// growing.
std::array<uint8_t, 32> HashFiles(
    const std::vector<IdentityFile>& files, int threads,
    const std::function<void(uint64_t bytes_done, uint64_t bytes_total)>& progress);

}  // namespace troupe

#endif  // TROUPE_MODEL_IDENTITY_H_
