#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <random>
#include <utility>

#include "base/check.h"
#include "kernels/device.h"
#include "kernels/device_bench.h"
#include "kernels/element.h"

namespace troupe {

Bench::Bench(const std::string& device, std::string wanted) : wanted_(std::move(wanted)) {
  auto ops = device == "own" ? MakeCudaOps({.cublas = false}) : MakeOps(device, {});
  CHECK_OK(ops);
  ops_ = *std::move(ops);
  std::printf("%s\n", ops_->Describe().c_str());
  noise_.resize(8 * kMib);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (float& value : noise_) value = normal(random);
  TimeCopies();
}

bool Bench::Wants(const std::string& begin) const {
  return begin.find(wanted_) != std::string::npos || wanted_.rfind(begin, 0) == 0;
}

void* Bench::New(int64_t bytes) {
  auto buffer = ops_->Allocate(bytes);
  CHECK_OK(buffer);
  buffers_.push_back(*buffer);
  return buffer->get();
}

void Bench::Forget() {
  ops_->Synchronize();
  buffers_.clear();
  matrices_.clear();
}

Tensor Bench::Random(int64_t rows, int64_t cols, DType dtype, float scale) {
  const Tensor tensor = {New(rows * cols * BytesOf(dtype)), dtype, rows, cols, cols};
  Fill(tensor.data, rows * cols, dtype, scale);
  return tensor;
}

void Bench::Fill(void* to, int64_t count, DType dtype, float scale) {
  std::vector<std::byte> host(std::min<int64_t>(count, noise_.size()) * BytesOf(dtype));
  const int64_t piece = static_cast<int64_t>(host.size()) / BytesOf(dtype);
  for (int64_t i = 0; i < piece; ++i) StoreElement(host.data(), dtype, i, noise_[i] * scale);
  for (int64_t done = 0; done < count; done += piece) {
    ops_->Upload(static_cast<std::byte*>(to) + done * BytesOf(dtype), host.data(),
                 std::min(piece, count - done) * BytesOf(dtype));
  }
}

std::vector<float> Bench::FirstRow(const Tensor& tensor) {
  const auto* row = static_cast<const float*>(ops_->Fetch(tensor.data, tensor.cols * 4));
  ops_->Synchronize();
  return {row, row + tensor.cols};
}

const PackedMatrix* Bench::Weights(int64_t outputs, int64_t inputs, Precision precision) {
  std::vector<Bf16> host(outputs * inputs);
  const float scale = 1 / std::sqrt(static_cast<float>(inputs));
  const size_t skip = (matrices_.size() * 7919) % noise_.size();
  for (size_t i = 0; i < host.size(); ++i) {
    host[i] = ToBf16(noise_[(i + skip) % noise_.size()] * scale);
  }
  matrices_.push_back(
      ops_->Pack({{host.data(), DType::kBf16, outputs, inputs, inputs}}, precision));
  return matrices_.back().get();
}

const PackedMatrix* Bench::Codes(const CodedFormat& format, int64_t outputs, int64_t inputs) {
  const CodedMatrix shape = {
      .format = format.code, .rows = outputs, .cols = inputs, .group = format.group};
  std::vector<std::byte> codes(outputs * shape.row_bytes());
  const size_t skip = (matrices_.size() * 7919) % noise_.size();
  for (size_t i = 0; i < codes.size(); ++i) {
    uint32_t bits;
    std::memcpy(&bits, &noise_[(i + skip) % noise_.size()], sizeof(bits));
    codes[i] = static_cast<std::byte>(bits >> 5 & 0x7e);  // no NaN of 8 bits
  }
  const float size = 1 / (64 * std::sqrt(static_cast<float>(inputs)));
  const std::vector<float> scales(outputs * shape.groups(), std::exp2(std::floor(std::log2(size))));
  CodedMatrix matrix = shape;
  matrix.codes = codes.data();
  matrix.scales = scales.data();
  matrix.scale_format = format.scale;
  matrices_.push_back(ops_->PackCoded({matrix}, Precision::kBf16));
  return matrices_.back().get();
}

void Bench::Time(const std::string& name, int64_t bytes, int64_t flops,
                 const std::function<void(int)>& call, int turns) {
  // The copies are always timed: shares of their rate are printed.
  if (copy_rate_ != 0 && name.find(wanted_) == std::string::npos) return;
  constexpr int kRounds = 5;
  constexpr double kSectionSeconds = 0.004;
  constexpr double kRoundSeconds = 0.02;
  constexpr int kMostCalls = 200;  // of a section
  // Graphs belong to a place of what a step stages.
  ops_->BeginStep();
  ops_->Stage(noise_.data(), sizeof(float));
  Replays none;
  Seconds(none, turns, 1, call);
  const double once = Seconds(none, turns, 1, call);
  const int most = std::max(1, kMostCalls / turns);
  const int calls = turns * std::clamp(static_cast<int>(kSectionSeconds / (once * turns)), 1, most);
  const std::unique_ptr<Replays> replays = ops_->MakeReplays();
  Seconds(*replays, calls, 3, call);  // the first runs, the second is recorded
  const int sections = std::clamp(static_cast<int>(kRoundSeconds / (once * calls)), 1, 200);
  std::vector<double> seconds;
  for (int round = 0; round < kRounds; ++round) {
    seconds.push_back(Seconds(*replays, calls, sections, call));
  }
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[kRounds / 2];
  CHECK_OK(ops_->status());
  const double rate = static_cast<double>(bytes) / median / 1e9;
  if (copy_rate_ == 0) copy_rate_ = rate;
  std::printf("%-48s %10.1f us %10.2f MB %8.0f GB/s %5.1f%% of copy %8.1f TFLOP/s\n", name.c_str(),
              median * 1e6, static_cast<double>(bytes) / 1e6, rate, 100 * rate / copy_rate_,
              static_cast<double>(flops) / median / 1e12);
  std::fflush(stdout);
}

double Bench::Seconds(Replays& replays, int calls, int sections,
                      const std::function<void(int)>& call) {
  ops_->Synchronize();
  const auto start = std::chrono::steady_clock::now();
  for (int section = 0; section < sections; ++section) {
    if (!replays.Begin({})) continue;
    for (int i = 0; i < calls; ++i) call(i);
    replays.End();
  }
  ops_->Synchronize();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  return took.count() / (int64_t{calls} * sections);
}

void Bench::TimeCopies() {
  constexpr int kPages = 64;
  constexpr int64_t kPageBytes = 32 * kMib;
  auto* pages = static_cast<std::byte*>(New(2 * kPages * kPageBytes));
  Fill(pages, 2 * kPages * kPageBytes / 4, DType::kF32, 1);
  std::vector<uint32_t> from(kPages);
  std::iota(from.begin(), from.end(), 0);
  std::vector<uint32_t> to(kPages);
  std::iota(to.begin(), to.end(), kPages);
  const PageCopyParams params = {
      .pages = pages, .page_bytes = kPageBytes, .count = kPages, .from = Put(from), .to = Put(to)};
  Time("copy of 2 GiB", 2 * kPages * kPageBytes, 0, [&](int) { ops_->PageCopy(params); });
  Forget();
}

// Codes of numbers around one, and scales, for all pages.
void FillCodes(Bench& bench, std::byte* memory, int64_t pages, int64_t stream_bytes,
               int64_t code_bytes) {
  std::mt19937 random(5);
  std::vector<std::byte> page(2 * stream_bytes);
  for (size_t i = 0; i < page.size(); ++i) {
    const bool is_code = static_cast<int64_t>(i) % stream_bytes < code_bytes;
    page[i] = is_code ? std::byte(0x38 | (random() & 0x87)) : std::byte{127};
  }
  for (int64_t i = 0; i < pages; ++i) {
    bench.ops().Upload(memory + i * 2 * stream_bytes, page.data(), 2 * stream_bytes);
  }
}

BenchPages MakePages(Bench& bench, int sequences, int blocks, int kv_heads, int head_dim,
                     int page_entries, DType dtype) {
  constexpr int64_t kCacheBytes = 300 * kMib;
  constexpr int64_t kMostTurns = 32;
  const int64_t rows = int64_t{kv_heads} * page_entries;
  const int64_t stream_bytes = rows * (head_dim * BytesOf(dtype) + ScaleBytesOf(dtype));
  const int64_t pages = int64_t{sequences} * blocks;
  const int64_t turn_bytes = pages * 2 * stream_bytes;
  const int64_t turns = std::clamp<int64_t>(kCacheBytes / turn_bytes, 1, kMostTurns);
  auto* memory = static_cast<std::byte*>(bench.New(turns * turn_bytes));
  if (dtype == DType::kE4M3) {
    FillCodes(bench, memory, turns * pages, stream_bytes, rows * head_dim);
  } else {
    bench.Fill(memory, turns * turn_bytes / 2, DType::kBf16, 1);
  }
  std::vector<uint32_t> table(pages);
  std::iota(table.begin(), table.end(), 0);
  std::shuffle(table.begin(), table.end(), std::mt19937(3));
  BenchPages made;
  for (int64_t turn = 0; turn < turns; ++turn) {
    made.k.push_back({.base = memory + turn * turn_bytes,
                      .page_bytes = 2 * stream_bytes,
                      .entries_per_page = page_entries,
                      .kv_heads = kv_heads,
                      .head_dim = head_dim,
                      .dtype = dtype});
    made.v.push_back(made.k.back());
    made.v.back().base += stream_bytes;
  }
  made.tables = {bench.Put(table), blocks};
  return made;
}

BatchView MakeBatch(Bench& bench, int sequences, int length, int count, int stagger) {
  std::vector<uint32_t> slot;
  std::vector<int32_t> start;
  std::vector<int32_t> first = {0};
  std::vector<int32_t> position;
  std::vector<int32_t> token_row;
  for (int row = 0; row < sequences; ++row) {
    slot.push_back(row);
    start.push_back(length - count - row * stagger);
    for (int i = 0; i < count; ++i) {
      position.push_back(start.back() + i);
      token_row.push_back(row);
    }
    first.push_back(static_cast<int32_t>(position.size()));
  }
  return {.rows = sequences,
          .tokens = sequences * count,
          .slot = bench.Put(slot),
          .start = bench.Put(start),
          .first = bench.Put(first),
          .position = bench.Put(position),
          .token_row = bench.Put(token_row),
          .longest = length};
}

}  // namespace troupe
