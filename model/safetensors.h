// Safetensors checkpoints: memory-mapped, possibly sharded, every rule of the format checked.
//
// A checkpoint is either one `.safetensors` file or shards listed by
// `model.safetensors.index.json`. All headers are read and validated when the checkpoint is opened;
// tensor bytes are only mapped, and reach memory when they are first touched.
//
// Thread model: immutable after Open; any thread may read.
// Ownership: the mappings are read-only and shared. A TensorView borrows from the SafetensorsFile
// (or SafetensorsCheckpoint) that gave it and must not outlive it. A file that another process
// truncates while it is mapped makes reads fault (SIGBUS), as with any mapping: replace checkpoints
// by rename, never in place.
// Errors: InvalidArgument for a malformed file, NotFound for a missing one; each message names the
// file, the field, what was found and what was wanted.
#ifndef TROUPE_MODEL_SAFETENSORS_H_
#define TROUPE_MODEL_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json_fwd.hpp"

namespace troupe {

// Every element type the format defines: what a file stores, not what kernels compute with.
// Sub-byte types pack elements without padding.
enum class StoredDType : uint8_t {
  kBool,
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kU64,
  kI64,
  kF4,  // e2m1
  kF6E2M3,
  kF6E3M2,
  kF8E4M3,
  kF8E5M2,
  kF8E8M0,
  kF16,
  kBF16,
  kF32,
  kF64,
  kC64,
};

int BitsPerElement(StoredDType dtype);
absl::string_view DTypeName(StoredDType dtype);  // as the file spells it: "BF16"
std::optional<StoredDType> DTypeFromName(absl::string_view name);

// One tensor, row-major, little-endian. All members borrow from the file it came from. The bytes
// are aligned for the element type: a tensor that the file puts elsewhere is copied when it is
// opened.
struct TensorView {
  absl::string_view name;
  StoredDType dtype = StoredDType::kF32;
  std::span<const int64_t> shape;  // empty for a scalar
  std::span<const std::byte> bytes;

  int64_t elements() const;
  bool empty() const { return bytes.data() == nullptr; }
  std::string ShapeString() const;  // "[512, 256]"
};

// One mapped `.safetensors` file.
class SafetensorsFile {
 public:
  // A larger header is refused: the limit of the reference implementation.
  static constexpr uint64_t kMaxHeaderBytes = 100'000'000;

  static absl::StatusOr<std::shared_ptr<const SafetensorsFile>> Open(const std::string& path);
  // Checks and indexes bytes that `owner`, or without one the caller, keeps alive; `path` only
  // names them in errors.
  static absl::StatusOr<std::shared_ptr<const SafetensorsFile>> Parse(
      const std::string& path, std::span<const std::byte> file,
      std::shared_ptr<const void> owner = nullptr);

  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return file_; }  // header included
  const std::map<std::string, std::string, std::less<>>& metadata() const { return metadata_; }
  // In the order of their data.
  const std::vector<TensorView>& tensors() const { return views_; }

 private:
  struct Tensor {
    std::string name;
    StoredDType dtype;
    std::vector<int64_t> shape;
    uint64_t begin;
    uint64_t end;
  };

  SafetensorsFile() = default;
  absl::Status ParseHeader();
  absl::Status AddMetadata(const nlohmann::json& value);
  absl::Status AddTensor(const std::string& name, const nlohmann::json& value);
  absl::Status CheckOffsets();
  void BuildViews();

  std::string path_;
  std::span<const std::byte> file_;
  std::span<const std::byte> data_;  // file_ behind the header
  bool mapped_ = false;              // file_ is a mapping of ours
  std::shared_ptr<const void> owner_;
  std::map<std::string, std::string, std::less<>> metadata_;
  std::vector<Tensor> tensors_;
  std::vector<TensorView> views_;
  std::vector<std::unique_ptr<std::byte[]>> realigned_;
};

// All tensors of a folder, whichever shard holds them.
class SafetensorsCheckpoint {
 public:
  static constexpr absl::string_view kIndexFile = "model.safetensors.index.json";
  static constexpr absl::string_view kSingleFile = "model.safetensors";

  // `folder` holds one model.safetensors, or an index with its shards.
  static absl::StatusOr<SafetensorsCheckpoint> OpenFolder(const std::string& folder);
  static SafetensorsCheckpoint Of(std::shared_ptr<const SafetensorsFile> file);
  static absl::StatusOr<SafetensorsCheckpoint> Of(
      std::vector<std::shared_ptr<const SafetensorsFile>> files);
  // Whether OpenFolder would look for tensors there.
  static bool IsIn(const std::string& folder);

  const std::vector<std::shared_ptr<const SafetensorsFile>>& files() const { return files_; }
  // By name, over all shards.
  const std::map<absl::string_view, TensorView>& tensors() const { return tensors_; }
  const TensorView* Find(absl::string_view name) const;  // nullptr when absent
  uint64_t file_bytes() const;                           // of all shards, headers included

 private:
  absl::Status AddFile(std::shared_ptr<const SafetensorsFile> file);

  std::vector<std::shared_ptr<const SafetensorsFile>> files_;
  std::map<absl::string_view, TensorView> tensors_;
};

}  // namespace troupe

#endif  // TROUPE_MODEL_SAFETENSORS_H_
