#include "kernels/ops_testing.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <random>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/cpu_isa.h"
#include "kernels/element.h"
#include "kernels/kv_entry.h"

namespace troupe {
namespace {

constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();
constexpr std::byte kPoisonByte{0xff};  // NaN as a code and as a scale
constexpr uint32_t kNoPage = std::numeric_limits<uint32_t>::max();
// What NaN reads as, so that poison compares equal to itself.
constexpr float kReadNan = 1e30F;

// The matrix as it lies in memory: rows of cols + kRowGap elements.
constexpr int64_t kRowGap = 16;
std::vector<std::byte> SpreadRows(const Matrix& matrix, DType dtype) {
  const int64_t stride = matrix.cols + kRowGap;
  std::vector<std::byte> host(matrix.rows * stride * BytesOf(dtype));
  for (int64_t row = 0; row < matrix.rows; ++row) {
    for (int64_t col = 0; col < stride; ++col) {
      StoreElement(host.data(), dtype, row * stride + col,
                   col < matrix.cols ? matrix.Row(row)[col] : kPoison);
    }
  }
  return host;
}

// With cuBLASLt, where there is any, and without.
void AddCudaBackends(std::vector<Backend>& backends) {
  if (!CudaMissing().ok()) return;
  const auto add = [&](const std::string& name, const CudaOpsOptions& options) {
    backends.push_back({name,
                        [options] {
                          auto ops = MakeCudaOps(options);
                          CHECK_OK(ops);
                          return *std::move(ops);
                        },
                        /*rounds_attention=*/true,
                        /*rounds_codes=*/true});
  };
  add("cuda", {});
  add("cuda_own_products", {.cublas = false});
}

}  // namespace

Backend ReferenceBackend() { return {"reference", MakeReferenceOps}; }

std::vector<Backend> CandidateBackends() {
  std::vector<Backend> backends;
  const absl::StatusOr<CpuIsa> best = DetectCpuIsa();
  CHECK_OK(best);
  for (int isa = 0; isa <= static_cast<int>(*best); ++isa) {
    for (const int threads : {1, 2}) {
      const CpuOpsOptions options = {.threads = threads, .isa = static_cast<CpuIsa>(isa)};
      backends.push_back({absl::StrCat(CpuIsaName(options.isa), "_threads_", threads),
                          [options] { return MakeCpuOps(options); }});
    }
  }
  AddCudaBackends(backends);
  const char* wanted = std::getenv("TROUPE_TEST_BACKENDS");
  if (wanted != nullptr) {
    std::erase_if(backends, [wanted](const Backend& backend) {
      return backend.name.find(wanted) == std::string::npos;
    });
  }
  return backends;
}

uint64_t TestSeed() {
  static const uint64_t seed = [] {
    const char* given = std::getenv("TROUPE_TEST_SEED");
    return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  }();
  return seed;
}

absl::Status CudaMissing() {
  static const auto& status = *new absl::Status(MakeCudaOps({}).status());
  return status;
}

Matrix Matrix::Pick(const std::vector<int>& picked) const {
  Matrix out{static_cast<int64_t>(picked.size()), cols, {}};
  for (const int row : picked) out.values.insert(out.values.end(), Row(row), Row(row) + cols);
  return out;
}

TestDevice::TestDevice(const Backend& backend)
    : ops_(backend.make()),
      rounds_attention_(backend.rounds_attention),
      rounds_codes_(backend.rounds_codes) {}

float TestDevice::AttentionTolerance(DType dtype) const {
  // Sums of some hundred products in f32, and weights within a few units of the last place.
  constexpr float kExact = 2e-5F;
  // Of values of 3 standard deviations: a weight rounded to 8 bits, and one of a score whose query
  // was.
  constexpr float kRounded = 0x1p-6F;
  return rounds_attention_ && dtype != DType::kF32 ? kRounded : kExact;
}

void* TestDevice::New(int64_t bytes) {
  absl::StatusOr<Buffer> buffer = ops_->Allocate(std::max<int64_t>(bytes, 1));
  CHECK_OK(buffer);
  buffers_.push_back(*buffer);
  return buffer->get();
}

Tensor TestDevice::Put(const Matrix& matrix, DType dtype) {
  return {Put(SpreadRows(matrix, dtype)), dtype, matrix.rows, matrix.cols, matrix.cols + kRowGap};
}

Tensor TestDevice::Keep(const Matrix& matrix, DType dtype) {
  std::vector<std::byte>& host = kept_.emplace_back(SpreadRows(matrix, dtype));
  return {host.data(), dtype, matrix.rows, matrix.cols, matrix.cols + kRowGap};
}

Matrix TestDevice::Get(const Tensor& tensor) {
  const std::vector<std::byte> host = Get(static_cast<const std::byte*>(tensor.data),
                                          tensor.rows * tensor.stride * BytesOf(tensor.dtype));
  Matrix out{tensor.rows, tensor.cols, {}};
  for (int64_t row = 0; row < tensor.rows; ++row) {
    for (int64_t col = 0; col < tensor.cols; ++col) {
      out.values.push_back(LoadElement(host.data(), tensor.dtype, row * tensor.stride + col));
    }
  }
  return out;
}

std::vector<Step> InOneStep(const std::vector<Sequence>& sequences) {
  Step step;
  for (int row = 0; row < static_cast<int>(sequences.size()); ++row) {
    step.push_back({row, 0, sequences[row].count});
  }
  return {step};
}

std::vector<Step> EachAlone(const std::vector<Sequence>& sequences) {
  const Step all = InOneStep(sequences).front();
  std::vector<Step> steps;
  for (const Span& span : all) steps.push_back({span});
  return steps;
}

std::vector<Step> TokenByToken(const std::vector<Sequence>& sequences) {
  std::vector<Step> steps;
  for (int token = 0;; ++token) {
    Step step;
    for (int row = 0; row < static_cast<int>(sequences.size()); ++row) {
      if (token < sequences[row].count) step.push_back({row, token, 1});
    }
    if (step.empty()) return steps;
    steps.push_back(step);
  }
}

std::vector<Step> RandomlyCut(const std::vector<Sequence>& sequences, TestRandom& random) {
  std::vector<Step> steps;
  std::vector<int> done(sequences.size(), 0);
  for (;;) {
    Step step;
    bool all_done = true;
    for (int row = 0; row < static_cast<int>(sequences.size()); ++row) {
      const int left = sequences[row].count - done[row];
      if (left == 0) continue;
      all_done = false;
      const int count = std::uniform_int_distribution<int>(0, left)(random);
      if (count > 0) step.push_back({row, done[row], count});
      done[row] += count;
    }
    if (all_done) return steps;
    std::shuffle(step.begin(), step.end(), random);
    if (!step.empty()) steps.push_back(step);
  }
}

int TokensOf(const std::vector<Sequence>& sequences) {
  return std::accumulate(sequences.begin(), sequences.end(), 0,
                         [](int sum, const Sequence& sequence) { return sum + sequence.count; });
}

std::vector<uint32_t> RandomSlots(size_t count, TestRandom& random) {
  std::vector<uint32_t> slots(count + 2);
  std::iota(slots.begin(), slots.end(), 0);
  std::shuffle(slots.begin(), slots.end(), random);
  slots.resize(count);
  return slots;
}

StepBatch PutStep(TestDevice& device, const std::vector<Sequence>& sequences,
                  const std::vector<uint32_t>& slots, const Step& step) {
  std::vector<int> offset(sequences.size(), 0);
  for (size_t row = 1; row < sequences.size(); ++row) {
    offset[row] = offset[row - 1] + sequences[row - 1].count;
  }
  StepBatch batch;
  std::vector<uint32_t> slot;
  std::vector<int32_t> start;
  std::vector<int32_t> first = {0};
  std::vector<int32_t> position;
  std::vector<int32_t> token_row;
  int longest = 0;
  for (const Span& span : step) {
    slot.push_back(slots[span.row]);
    start.push_back(sequences[span.row].start + span.first);
    for (int i = 0; i < span.count; ++i) {
      batch.tokens.push_back(offset[span.row] + span.first + i);
      position.push_back(start.back() + i);
      token_row.push_back(static_cast<int32_t>(batch.rows.size()));
    }
    first.push_back(static_cast<int32_t>(batch.tokens.size()));
    longest = std::max(longest, start.back() + span.count);
    batch.rows.push_back(span.row);
  }
  batch.view = {.rows = static_cast<int>(step.size()),
                .tokens = static_cast<int>(batch.tokens.size()),
                .slot = device.Put(slot),
                .start = device.Put(start),
                .first = device.Put(first),
                .position = device.Put(position),
                .token_row = device.Put(token_row),
                .longest = longest};
  return batch;
}

std::vector<float> RandomVector(int64_t count, TestRandom& random, float mean, float scale) {
  std::vector<float> values(count);
  for (float& value : values) value = mean + scale * random.Normal();
  return values;
}

Matrix RandomMatrix(int64_t rows, int64_t cols, TestRandom& random, float scale) {
  return {rows, cols, RandomVector(rows * cols, random, 0, scale)};
}

TestPages::TestPages(const Shape& shape, const std::vector<uint32_t>& slots, int blocks,
                     TestRandom& random)
    : shape_(shape), stride_(blocks) {
  page_bytes_ = ValueOffset() + StreamBytes(/*is_key=*/false) + kGapBytes;
  const auto pages = static_cast<uint32_t>(slots.size() * blocks + 3);
  pages_.resize(pages * page_bytes_);
  if (shape.dtype == DType::kE4M3) {
    std::fill(pages_.begin(), pages_.end(), kPoisonByte);
  } else {
    for (int64_t i = 0; i < static_cast<int64_t>(pages_.size()) / BytesOf(shape.dtype); ++i) {
      StoreElement(pages_.data(), shape.dtype, i, kPoison);
    }
  }
  std::vector<uint32_t> order(pages);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random);
  tables_.assign((*std::max_element(slots.begin(), slots.end()) + 1) * blocks, kNoPage);
  for (const uint32_t slot : slots) {
    for (int block = 0; block < blocks; ++block) {
      tables_[slot * stride_ + block] = order.back();
      order.pop_back();
    }
  }
}

int64_t TestPages::StreamBytes(bool is_key) const {
  return int64_t{shape_.kv_heads} * shape_.entries_per_page *
         (shape_.Dim(is_key) * BytesOf(shape_.dtype) + ScaleBytesOf(shape_.dtype));
}

KvStream TestPages::StreamAt(std::byte* pages, bool is_key) const {
  return {.base = pages + (is_key ? 0 : ValueOffset()),
          .page_bytes = page_bytes_,
          .entries_per_page = shape_.entries_per_page,
          .kv_heads = shape_.kv_heads,
          .head_dim = shape_.Dim(is_key),
          .dtype = shape_.dtype};
}

uint32_t TestPages::PageOf(uint32_t slot, int64_t entry) const {
  const uint32_t page = tables_[slot * stride_ + entry / shape_.entries_per_page];
  CHECK_NE(page, kNoPage);
  return page;
}

std::vector<float> TestPages::Entry(uint32_t slot, int64_t entry, int head, bool is_key) const {
  return LoadKvEntry(StreamAt(const_cast<std::byte*>(pages_.data()), is_key), PageOf(slot, entry),
                     head, entry % shape_.entries_per_page);
}

void TestPages::SetEntry(uint32_t slot, int64_t entry, int head, bool is_key,
                         const std::vector<float>& values) {
  StoreKvEntry(StreamAt(pages_.data(), is_key), PageOf(slot, entry), head,
               entry % shape_.entries_per_page, values.data());
}

void TestPages::FillEntries(uint32_t slot, int64_t begin, int64_t end, TestRandom& random) {
  for (int64_t entry = begin; entry < end; ++entry) {
    for (int head = 0; head < shape_.kv_heads; ++head) {
      for (const bool is_key : {true, false}) {
        SetEntry(slot, entry, head, is_key, RandomVector(shape_.Dim(is_key), random));
      }
    }
  }
}

void TestPages::Forget(uint32_t slot, int block) { tables_[slot * stride_ + block] = kNoPage; }

TestPages::OnDevice TestPages::Put(TestDevice& device) const {
  OnDevice out;
  out.pages = device.Put(pages_);
  out.k = StreamAt(out.pages, /*is_key=*/true);
  out.v = StreamAt(out.pages, /*is_key=*/false);
  out.tables = {device.Put(tables_), stride_};
  return out;
}

std::vector<float> TestPages::Get(TestDevice& device, const OnDevice& on_device) const {
  std::vector<std::byte> host = device.Get(on_device.pages, pages_.size());
  std::vector<float> values;
  if (shape_.dtype == DType::kE4M3) {
    for (const bool is_key : {true, false}) {
      const KvStream stream = StreamAt(host.data(), is_key);
      for (int64_t row = 0; row < static_cast<int64_t>(host.size()) / page_bytes_ *
                                      shape_.kv_heads * shape_.entries_per_page;
           ++row) {
        const int64_t head = row / shape_.entries_per_page;
        const std::vector<float> entry =
            LoadKvEntry(stream, static_cast<uint32_t>(head / shape_.kv_heads),
                        static_cast<int>(head % shape_.kv_heads), row % shape_.entries_per_page);
        values.insert(values.end(), entry.begin(), entry.end());
      }
    }
  } else {
    for (size_t i = 0; i < host.size() / BytesOf(shape_.dtype); ++i) {
      values.push_back(LoadElement(host.data(), shape_.dtype, static_cast<int64_t>(i)));
    }
  }
  for (float& value : values) {
    if (std::isnan(value)) value = kReadNan;
  }
  return values;
}

std::vector<float> TestPages::GetBytes(TestDevice& device, const OnDevice& on_device) const {
  const auto bytes = device.Get(reinterpret_cast<const uint8_t*>(on_device.pages), pages_.size());
  return {bytes.begin(), bytes.end()};
}

}  // namespace troupe
