#include "model/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status_util.h"
#include "model/json_reader.h"

namespace troupe {
namespace {

using nlohmann::json;

constexpr uint64_t kLengthBytes = 8;

struct StoredDTypeInfo {
  StoredDType dtype;
  absl::string_view name;
  int bits;
};

constexpr std::array kStoredDTypes = {
    StoredDTypeInfo{StoredDType::kBool, "BOOL", 8},
    StoredDTypeInfo{StoredDType::kU8, "U8", 8},
    StoredDTypeInfo{StoredDType::kI8, "I8", 8},
    StoredDTypeInfo{StoredDType::kU16, "U16", 16},
    StoredDTypeInfo{StoredDType::kI16, "I16", 16},
    StoredDTypeInfo{StoredDType::kU32, "U32", 32},
    StoredDTypeInfo{StoredDType::kI32, "I32", 32},
    StoredDTypeInfo{StoredDType::kU64, "U64", 64},
    StoredDTypeInfo{StoredDType::kI64, "I64", 64},
    StoredDTypeInfo{StoredDType::kF4, "F4", 4},
    StoredDTypeInfo{StoredDType::kF6E2M3, "F6_E2M3", 6},
    StoredDTypeInfo{StoredDType::kF6E3M2, "F6_E3M2", 6},
    StoredDTypeInfo{StoredDType::kF8E4M3, "F8_E4M3", 8},
    StoredDTypeInfo{StoredDType::kF8E5M2, "F8_E5M2", 8},
    StoredDTypeInfo{StoredDType::kF8E8M0, "F8_E8M0", 8},
    StoredDTypeInfo{StoredDType::kF16, "F16", 16},
    StoredDTypeInfo{StoredDType::kBF16, "BF16", 16},
    StoredDTypeInfo{StoredDType::kF32, "F32", 32},
    StoredDTypeInfo{StoredDType::kF64, "F64", 64},
    StoredDTypeInfo{StoredDType::kC64, "C64", 64},
};

const StoredDTypeInfo& InfoOf(StoredDType dtype) {
  return kStoredDTypes[static_cast<size_t>(dtype)];
}

// The bytes of a tensor, or nullopt when they overflow or are not whole.
std::optional<uint64_t> TensorBytes(StoredDType dtype, std::span<const int64_t> shape) {
  uint64_t bits = InfoOf(dtype).bits;
  for (int64_t dim : shape) {
    if (__builtin_mul_overflow(bits, static_cast<uint64_t>(dim), &bits)) return std::nullopt;
  }
  if (bits % 8 != 0) return std::nullopt;
  return bits / 8;
}

std::string ShownShape(std::span<const int64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

absl::StatusOr<std::span<const std::byte>> MapFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const std::string message = absl::StrCat(path, ": ", std::strerror(errno));
    return errno == ENOENT ? absl::NotFoundError(message) : absl::UnavailableError(message);
  }
  struct stat info {};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    return FieldError(path, "file type", "something else", "a regular file");
  }
  const auto size = static_cast<size_t>(info.st_size);
  if (size < kLengthBytes) {
    close(fd);
    return FieldError(path, "size", absl::StrCat(size, " bytes"),
                      "at least 8 bytes: the header's length");
  }
  void* data = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  const int error = errno;
  close(fd);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, ": mapping ", size, " bytes failed: ", std::strerror(error)));
  }
  return std::span(static_cast<const std::byte*>(data), size);
}

absl::StatusOr<std::vector<uint64_t>> UnsignedList(const std::string& file,
                                                   const std::string& field, const json& value) {
  if (!value.is_array()) return FieldError(file, field, Shown(value), "a list of integers");
  std::vector<uint64_t> list;
  for (size_t i = 0; i < value.size(); ++i) {
    if (!value[i].is_number_unsigned()) {
      return FieldError(file, absl::StrCat(field, "[", i, "]"), Shown(value[i]),
                        "an integer from 0 to 2^64 - 1");
    }
    list.push_back(value[i].get<uint64_t>());
  }
  return list;
}

}  // namespace

int BitsPerElement(StoredDType dtype) { return InfoOf(dtype).bits; }

absl::string_view DTypeName(StoredDType dtype) { return InfoOf(dtype).name; }

std::optional<StoredDType> DTypeFromName(absl::string_view name) {
  for (const StoredDTypeInfo& info : kStoredDTypes) {
    if (info.name == name) return info.dtype;
  }
  return std::nullopt;
}

int64_t TensorView::elements() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

std::string TensorView::ShapeString() const { return ShownShape(shape); }

// --- One file ---------------------------------------------------------------------------------

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::Open(
    const std::string& path) {
  TROUPE_ASSIGN_OR_RETURN(const auto mapping, MapFile(path));
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile);
  file->path_ = path;
  file->file_ = mapping;
  file->mapped_ = true;
  TROUPE_RETURN_IF_ERROR(file->ParseHeader());
  return file;
}

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::Parse(
    const std::string& path, std::span<const std::byte> bytes, std::shared_ptr<const void> owner) {
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile);
  file->path_ = path;
  file->file_ = bytes;
  file->owner_ = std::move(owner);
  TROUPE_RETURN_IF_ERROR(file->ParseHeader());
  return file;
}

SafetensorsFile::~SafetensorsFile() {
  if (mapped_) munmap(const_cast<std::byte*>(file_.data()), file_.size());
}

absl::Status SafetensorsFile::ParseHeader() {
  if (file_.size() < kLengthBytes) {
    return FieldError(path_, "size", absl::StrCat(file_.size(), " bytes"),
                      "at least 8 bytes: the header's length");
  }
  uint64_t length = 0;
  std::memcpy(&length, file_.data(), kLengthBytes);
  if (length < 2 || length > kMaxHeaderBytes) {
    return FieldError(path_, "header length", absl::StrCat(length, " bytes"),
                      absl::StrCat("2 to ", kMaxHeaderBytes));
  }
  if (length > file_.size() - kLengthBytes) {
    return FieldError(path_, "header length", absl::StrCat(length, " bytes"),
                      absl::StrCat("at most the ", file_.size() - kLengthBytes,
                                   " bytes that follow it: the file is truncated"));
  }
  const absl::string_view text(reinterpret_cast<const char*>(file_.data()) + kLengthBytes, length);
  if (text.front() != '{') {
    return FieldError(path_, "header's first byte", text.substr(0, 1), "'{'");
  }
  TROUPE_ASSIGN_OR_RETURN(const json header, ParseJson(path_, text));
  for (const auto& [name, value] : header.items()) {
    absl::Status status = name == "__metadata__" ? AddMetadata(value) : AddTensor(name, value);
    if (!status.ok()) return status;
  }
  data_ = file_.subspan(kLengthBytes + length);
  TROUPE_RETURN_IF_ERROR(CheckOffsets());
  BuildViews();
  return absl::OkStatus();
}

absl::Status SafetensorsFile::AddMetadata(const json& value) {
  if (!value.is_object()) {
    return FieldError(path_, "__metadata__", Shown(value), "an object of strings");
  }
  for (const auto& [key, entry] : value.items()) {
    if (!entry.is_string()) {
      return FieldError(path_, absl::StrCat("__metadata__.", key), Shown(entry), "a string");
    }
    metadata_.emplace(key, entry.get<std::string>());
  }
  return absl::OkStatus();
}

absl::Status SafetensorsFile::AddTensor(const std::string& name, const json& value) {
  if (!value.is_object() || value.size() != 3 || !value.contains("dtype") ||
      !value.contains("shape") || !value.contains("data_offsets")) {
    return FieldError(path_, name, Shown(value), "an object of dtype, shape and data_offsets");
  }
  const json& dtype_name = value["dtype"];
  const std::optional<StoredDType> dtype =
      dtype_name.is_string() ? DTypeFromName(dtype_name.get_ref<const std::string&>())
                             : std::nullopt;
  if (!dtype) return FieldError(path_, name + ".dtype", Shown(dtype_name), "a known dtype");

  TROUPE_ASSIGN_OR_RETURN(const auto shape, UnsignedList(path_, name + ".shape", value["shape"]));
  Tensor tensor{name, *dtype, {}, 0, 0};
  for (uint64_t dim : shape) {
    if (dim > INT64_MAX) {
      return FieldError(path_, name + ".shape", Shown(value["shape"]), "sizes under 2^63");
    }
    tensor.shape.push_back(static_cast<int64_t>(dim));
  }
  TROUPE_ASSIGN_OR_RETURN(const auto offsets,
                          UnsignedList(path_, name + ".data_offsets", value["data_offsets"]));
  if (offsets.size() != 2 || offsets[0] > offsets[1]) {
    return FieldError(path_, name + ".data_offsets", Shown(value["data_offsets"]),
                      "[begin, end] with begin <= end");
  }
  tensor.begin = offsets[0];
  tensor.end = offsets[1];
  const std::optional<uint64_t> bytes = TensorBytes(*dtype, tensor.shape);
  if (!bytes) {
    return FieldError(path_, name + ".shape", ShownShape(tensor.shape),
                      absl::StrCat("a size in whole bytes under 2^61 for ", DTypeName(*dtype)));
  }
  if (*bytes != tensor.end - tensor.begin) {
    return FieldError(
        path_, name + ".data_offsets", absl::StrCat(tensor.end - tensor.begin, " bytes"),
        absl::StrFormat("%d bytes for %s %s", *bytes, DTypeName(*dtype), ShownShape(tensor.shape)));
  }
  tensors_.push_back(std::move(tensor));
  return absl::OkStatus();
}

absl::Status SafetensorsFile::CheckOffsets() {
  std::sort(tensors_.begin(), tensors_.end(), [](const Tensor& a, const Tensor& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  uint64_t expected = 0;
  for (const Tensor& tensor : tensors_) {
    if (tensor.begin != expected) {
      return FieldError(path_, tensor.name + ".data_offsets",
                        absl::StrFormat("[%d, %d]", tensor.begin, tensor.end),
                        absl::StrFormat("a begin of %d: data without %s", expected,
                                        tensor.begin > expected ? "holes" : "overlap"));
    }
    expected = tensor.end;
  }
  if (expected != data_.size()) {
    return FieldError(path_, "data", absl::StrCat(data_.size(), " bytes"),
                      absl::StrCat(expected, " bytes, where the last tensor ends",
                                   expected > data_.size() ? ": the file is truncated" : ""));
  }
  return absl::OkStatus();
}

void SafetensorsFile::BuildViews() {
  views_.reserve(tensors_.size());
  for (const Tensor& tensor : tensors_) {
    std::span<const std::byte> bytes = data_.subspan(tensor.begin, tensor.end - tensor.begin);
    const auto alignment = static_cast<uintptr_t>(std::max(1, BitsPerElement(tensor.dtype) / 8));
    if (reinterpret_cast<uintptr_t>(bytes.data()) % alignment != 0) {
      auto copy = std::make_unique<std::byte[]>(bytes.size());
      std::copy(bytes.begin(), bytes.end(), copy.get());
      bytes = std::span<const std::byte>(copy.get(), bytes.size());
      realigned_.push_back(std::move(copy));
    }
    views_.push_back({tensor.name, tensor.dtype, tensor.shape, bytes});
  }
}

// --- A folder ---------------------------------------------------------------------------------

namespace {

// The weight_map of an index: tensor name -> shard, checked to name files of the folder itself.
absl::StatusOr<std::map<std::string, std::string>> ReadIndex(const std::string& path) {
  TROUPE_ASSIGN_OR_RETURN(const json index, ReadJsonFile(path));
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object() || map->empty()) {
    return FieldError(path, "weight_map", map == index.end() ? "nothing" : Shown(*map),
                      "an object from tensor names to shards");
  }
  std::map<std::string, std::string> shards;
  for (const auto& [name, shard] : map->items()) {
    const std::string* file = shard.get_ptr<const std::string*>();
    if (file == nullptr || file->empty() || *file == ".." ||
        file->find_first_of(std::string("/\0", 2)) != std::string::npos) {
      return FieldError(path, absl::StrCat("weight_map.", name), Shown(shard),
                        "the name of a file in the same folder");
    }
    shards.emplace(name, *file);
  }
  return shards;
}

}  // namespace

absl::Status SafetensorsCheckpoint::AddFile(std::shared_ptr<const SafetensorsFile> file) {
  for (const TensorView& view : file->tensors()) {
    if (!tensors_.emplace(view.name, view).second) {
      return FieldError(file->path(), view.name, "the tensor in an earlier shard too",
                        "each tensor in one shard");
    }
  }
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

SafetensorsCheckpoint SafetensorsCheckpoint::Of(std::shared_ptr<const SafetensorsFile> file) {
  SafetensorsCheckpoint checkpoint;
  CHECK_OK(checkpoint.AddFile(std::move(file)));  // one file names a tensor once
  return checkpoint;
}

absl::StatusOr<SafetensorsCheckpoint> SafetensorsCheckpoint::Of(
    std::vector<std::shared_ptr<const SafetensorsFile>> files) {
  SafetensorsCheckpoint checkpoint;
  for (auto& file : files) TROUPE_RETURN_IF_ERROR(checkpoint.AddFile(std::move(file)));
  return checkpoint;
}

bool SafetensorsCheckpoint::IsIn(const std::string& folder) {
  std::error_code ignored;
  return std::filesystem::exists(absl::StrCat(folder, "/", kSingleFile), ignored) ||
         std::filesystem::exists(absl::StrCat(folder, "/", kIndexFile), ignored);
}

absl::StatusOr<SafetensorsCheckpoint> SafetensorsCheckpoint::OpenFolder(const std::string& folder) {
  SafetensorsCheckpoint checkpoint;
  const std::string single = absl::StrCat(folder, "/", kSingleFile);
  const std::string index = absl::StrCat(folder, "/", kIndexFile);
  std::error_code ignored;
  if (std::filesystem::exists(single, ignored)) {
    TROUPE_ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open(single));
    TROUPE_RETURN_IF_ERROR(checkpoint.AddFile(std::move(file)));
    return checkpoint;
  }
  if (!std::filesystem::exists(index, ignored)) {
    return absl::NotFoundError(
        absl::StrCat(folder, ": found neither file, wanted ", kSingleFile, " or ", kIndexFile));
  }
  TROUPE_ASSIGN_OR_RETURN(const auto weight_map, ReadIndex(index));
  std::set<std::string> shards;
  for (const auto& [name, shard] : weight_map) shards.insert(shard);
  for (const std::string& shard : shards) {
    auto file = SafetensorsFile::Open(absl::StrCat(folder, "/", shard));
    if (!file.ok()) {
      return absl::Status(file.status().code(),
                          absl::StrCat(file.status().message(), " (a shard of ", index, ")"));
    }
    for (const TensorView& view : (*file)->tensors()) {
      const auto entry = weight_map.find(std::string(view.name));
      if (entry == weight_map.end() || entry->second != shard) {
        return FieldError(index, absl::StrCat("weight_map.", view.name),
                          entry == weight_map.end() ? "nothing" : entry->second,
                          absl::StrCat(shard, ", which holds the tensor"));
      }
    }
    TROUPE_RETURN_IF_ERROR(checkpoint.AddFile(*std::move(file)));
  }
  for (const auto& [name, shard] : weight_map) {
    if (checkpoint.Find(name) == nullptr) {
      return FieldError(absl::StrCat(folder, "/", shard), name, "no such tensor",
                        absl::StrCat("the tensor that ", kIndexFile, " places there"));
    }
  }
  return checkpoint;
}

const TensorView* SafetensorsCheckpoint::Find(absl::string_view name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

uint64_t SafetensorsCheckpoint::file_bytes() const {
  uint64_t bytes = 0;
  for (const auto& file : files_) bytes += file->bytes().size();
  return bytes;
}

}  // namespace troupe
