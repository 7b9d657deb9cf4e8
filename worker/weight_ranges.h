// Which bytes of a checkpoint's files hold a rank's weights.
//
// Thread model: plain values and pure functions; FileIndex is immutable. Ownership: FileIndex
// borrows the checkpoint's mappings.
#ifndef TROUPE_WORKER_WEIGHT_RANGES_H_
#define TROUPE_WORKER_WEIGHT_RANGES_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "model/matrix_view.h"
#include "model/safetensors.h"

namespace troupe {

// `count` stretches of `bytes` bytes, `stride` apart, the first at `begin` of a file.
struct FileRange {
  int file = 0;
  int64_t begin = 0;
  int64_t bytes = 0;
  int64_t stride = 0;
  int64_t count = 1;

  int64_t end() const { return begin + stride * (count - 1) + bytes; }
  int64_t total() const { return bytes * count; }
  bool operator==(const FileRange&) const = default;
};

class FileIndex {
 public:
  explicit FileIndex(const SafetensorsCheckpoint& files);

  int size() const { return static_cast<int>(files_.size()); }
  std::span<const std::byte> file(int index) const { return files_[index]; }

  // Of a matrix: no byte less than ReadRows looks at, and few more. FailedPrecondition for a tensor
  // whose bytes were copied because the file has them unaligned.
  absl::StatusOr<std::vector<FileRange>> Of(const MatrixView& matrix) const;
  absl::StatusOr<FileRange> Of(std::span<const std::byte> bytes, absl::string_view name) const;

 private:
  std::vector<std::span<const std::byte>> files_;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_WEIGHT_RANGES_H_
