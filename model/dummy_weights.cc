#include "model/dummy_weights.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <numeric>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_util.h"
#include "nlohmann/json.hpp"

namespace troupe {
namespace {

constexpr uint64_t kHeaderLengthBytes = 8;

uint64_t RoundedUp(uint64_t bytes, uint64_t to) { return (bytes + to - 1) / to * to; }

// Bits of a 64-bit word that are random, and those that are set, for values with exponents -7 and
// -6: sign and mantissa are random, and so is the lowest bit of the exponent.
struct WordPattern {
  uint64_t random;
  uint64_t set;
  uint64_t one;  // of values that are 1
};

WordPattern PatternOf(StoredDType dtype) {
  switch (dtype) {
    case StoredDType::kBF16:
      return {0x80FF80FF80FF80FF, 0x3C003C003C003C00, 0x3F803F803F803F80};
    case StoredDType::kF16:
      return {0x87FF87FF87FF87FF, 0x2000200020002000, 0x3C003C003C003C00};
    case StoredDType::kF32:
      return {0x80FFFFFF80FFFFFF, 0x3C0000003C000000, 0x3F8000003F800000};
    default:
      CHECK(false) << "dummy weights of " << DTypeName(dtype) << ", wanted BF16, F16 or F32";
  }
}

// SplitMix64 (Steele, Lea and Flood, 2014): word i of the stream `seed`, in any order.
uint64_t RandomWord(uint64_t seed, uint64_t i) {
  uint64_t z = seed + (i + 1) * 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

void FillRandom(std::byte* data, uint64_t bytes, const DummyOptions& options) {
  const WordPattern pattern = PatternOf(options.dtype);
  const uint64_t words = bytes / sizeof(uint64_t);
  const int threads = options.threads > 0
                          ? options.threads
                          : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const auto fill = [&](uint64_t begin, uint64_t end) {
    auto* out = reinterpret_cast<uint64_t*>(data);
    for (uint64_t i = begin; i < end; ++i) {
      out[i] = (RandomWord(options.seed, i) & pattern.random) | pattern.set;
    }
  };
  std::vector<std::thread> workers;
  for (int t = 0; t < threads; ++t) {
    workers.emplace_back(fill, words * t / threads, words * (t + 1) / threads);
  }
  for (std::thread& worker : workers) worker.join();
}

// Addresses [0, bytes): memory of their own up to `own_bytes`, behind that the same `shared_bytes`
// again and again. All three are whole pages.
class Mapping {
 public:
  static absl::StatusOr<std::shared_ptr<Mapping>> Make(uint64_t own_bytes, uint64_t shared_bytes,
                                                       uint64_t bytes) {
    const auto fail = [bytes] {
      return absl::ResourceExhaustedError(
          absl::StrCat("dummy weights of ", bytes, " bytes: ", std::strerror(errno)));
    };
    void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) return fail();
    std::shared_ptr<Mapping> mapping(new Mapping(static_cast<std::byte*>(data), bytes));
    if (own_bytes == bytes) return mapping;
    const int memory = memfd_create("troupe-dummy-weights", MFD_CLOEXEC);
    if (memory < 0) return fail();
    bool mapped = ftruncate(memory, static_cast<off_t>(shared_bytes)) == 0;
    for (uint64_t at = own_bytes; mapped && at < bytes; at += shared_bytes) {
      mapped = mmap(mapping->data_ + at, std::min(shared_bytes, bytes - at), PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_FIXED, memory, 0) != MAP_FAILED;
    }
    const int error = errno;
    close(memory);
    errno = error;
    if (!mapped) return fail();
    return mapping;
  }

  ~Mapping() { munmap(data_, bytes_); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  std::byte* data() const { return data_; }

 private:
  Mapping(std::byte* data, uint64_t bytes) : data_(data), bytes_(bytes) {}

  std::byte* data_;
  uint64_t bytes_;
};

struct Layout {
  std::string header;
  uint64_t vector_bytes = 0;  // of tensors with one dimension, which come first
  uint64_t data_bytes = 0;
};

uint64_t BytesOf(const TensorShape& tensor, StoredDType dtype) {
  const int64_t elements =
      std::accumulate(tensor.shape.begin(), tensor.shape.end(), int64_t{1}, std::multiplies<>());
  return static_cast<uint64_t>(elements) * BitsPerElement(dtype) / 8;
}

Layout LayOut(std::vector<const TensorShape*>& order, StoredDType dtype) {
  std::stable_partition(order.begin(), order.end(),
                        [](const TensorShape* tensor) { return tensor->shape.size() < 2; });
  Layout layout;
  nlohmann::json header = nlohmann::json::object();
  for (const TensorShape* tensor : order) {
    const uint64_t end = layout.data_bytes + BytesOf(*tensor, dtype);
    header[tensor->name] = {{"dtype", std::string(DTypeName(dtype))},
                            {"shape", tensor->shape},
                            {"data_offsets", {layout.data_bytes, end}}};
    layout.data_bytes = end;
    if (tensor->shape.size() < 2) layout.vector_bytes = end;
  }
  layout.header = header.dump();
  layout.header.resize(RoundedUp(layout.header.size(), sizeof(uint64_t)), ' ');
  return layout;
}

// Norms are 1; other vectors are biases.
void FillVector(const TensorShape& tensor, const WordPattern& pattern, uint64_t bytes,
                std::byte* out) {
  const uint64_t word = absl::StrContains(tensor.name, "norm") ? pattern.one : 0;
  for (uint64_t i = 0; i < bytes; i += sizeof(word)) {
    std::memcpy(out + i, &word, std::min<uint64_t>(sizeof(word), bytes - i));
  }
}

}  // namespace

absl::StatusOr<SafetensorsCheckpoint> MakeDummyTensors(const std::string& path,
                                                       const std::vector<TensorShape>& tensors,
                                                       const DummyOptions& options) {
  std::vector<const TensorShape*> order;
  for (const TensorShape& tensor : tensors) order.push_back(&tensor);
  const Layout layout = LayOut(order, options.dtype);
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t begin = kHeaderLengthBytes + layout.header.size();
  const uint64_t bytes = begin + layout.data_bytes;
  // What is not random lies in pages of its own.
  const uint64_t own =
      std::min(RoundedUp(begin + layout.vector_bytes, page), RoundedUp(bytes, page));
  const uint64_t rest = RoundedUp(bytes, page) - own;
  const uint64_t shared = std::min(rest, options.distinct_bytes);
  TROUPE_ASSIGN_OR_RETURN(const std::shared_ptr<Mapping> mapping,
                          Mapping::Make(own, shared, own + rest));
  std::byte* const data = mapping->data();
  FillRandom(data + own, shared, options);
  FillRandom(data, own, {.dtype = options.dtype, .seed = ~options.seed, .threads = 1});

  const uint64_t header_bytes = layout.header.size();
  std::memcpy(data, &header_bytes, sizeof(header_bytes));
  std::memcpy(data + kHeaderLengthBytes, layout.header.data(), header_bytes);
  std::byte* vector = data + begin;
  for (const TensorShape* tensor : order) {
    if (tensor->shape.size() >= 2) break;
    const uint64_t size = BytesOf(*tensor, options.dtype);
    FillVector(*tensor, PatternOf(options.dtype), size, vector);
    vector += size;
  }
  TROUPE_ASSIGN_OR_RETURN(auto file, SafetensorsFile::Parse(path, std::span(data, bytes), mapping));
  return SafetensorsCheckpoint::Of(std::move(file));
}

}  // namespace troupe
