// Times operations on a device at the shapes of Qwen3-30B-A3B, through Ops alone.
//
//   kernels_device_bench [cuda]     the device's name, as MakeOps takes it
//   kernels_device_bench own        the first GPU without cuBLASLt
//   kernels_device_bench cuda rows  only what has "rows" in its name, for a profiler
//
// Prints, for each shape, microseconds a call, the bytes that it must move, the rate, its share of
// the rate at which this device copies, and TFLOP/s. Calls follow one another without waiting, so
// what is timed is the device where a call takes longer there than to launch.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/device.h"
#include "kernels/element.h"
#include "kernels/linear/coded_testing.h"

namespace troupe {
namespace {

constexpr int64_t kMib = 1 << 20;

class Bench {
 public:
  Bench(const std::string& device, std::string wanted) : wanted_(std::move(wanted)) {
    auto ops = device == "own" ? MakeCudaOps({.cublas = false}) : MakeOps(device, {});
    CHECK_OK(ops);
    ops_ = *std::move(ops);
    std::printf("%s\n", ops_->Describe().c_str());
    noise_.resize(8 * kMib);
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (float& value : noise_) value = normal(random);
  }

  Ops& ops() { return *ops_; }
  // Whether any name that begins so may be timed.
  bool Wants(const std::string& begin) const {
    return begin.find(wanted_) != std::string::npos || wanted_.rfind(begin, 0) == 0;
  }

  void* New(int64_t bytes) {
    auto buffer = ops_->Allocate(bytes);
    CHECK_OK(buffer);
    buffers_.push_back(*buffer);
    return buffer->get();
  }

  // Random numbers of mean zero; what is longer than the supply repeats it.
  Tensor Random(int64_t rows, int64_t cols, DType dtype, float scale = 1) {
    const Tensor tensor = {New(rows * cols * BytesOf(dtype)), dtype, rows, cols, cols};
    Fill(tensor.data, rows * cols, dtype, scale);
    return tensor;
  }
  void Fill(void* to, int64_t count, DType dtype, float scale) {
    std::vector<std::byte> host(std::min<int64_t>(count, noise_.size()) * BytesOf(dtype));
    const int64_t piece = static_cast<int64_t>(host.size()) / BytesOf(dtype);
    for (int64_t i = 0; i < piece; ++i) StoreElement(host.data(), dtype, i, noise_[i] * scale);
    for (int64_t done = 0; done < count; done += piece) {
      ops_->Upload(static_cast<std::byte*>(to) + done * BytesOf(dtype), host.data(),
                   std::min(piece, count - done) * BytesOf(dtype));
    }
  }

  std::vector<float> FirstRow(const Tensor& tensor) {
    ops_->BeginStep();
    const auto* row = static_cast<const float*>(ops_->Fetch(tensor.data, tensor.cols * 4));
    ops_->Synchronize();
    return {row, row + tensor.cols};
  }

  template <class T>
  T* Put(const std::vector<T>& values) {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
    auto* to = static_cast<T*>(New(bytes));
    ops_->Upload(to, values.data(), bytes);
    return to;
  }

  const PackedMatrix* Weights(int64_t outputs, int64_t inputs, Precision precision) {
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

  // Random codes; scales that make of them weights of about one over the inputs' square root.
  const PackedMatrix* Codes(const CodedFormat& format, int64_t outputs, int64_t inputs) {
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
    const std::vector<float> scales(outputs * shape.groups(),
                                    std::exp2(std::floor(std::log2(size))));
    CodedMatrix matrix = shape;
    matrix.codes = codes.data();
    matrix.scales = scales.data();
    matrix.scale_format = format.scale;
    matrices_.push_back(ops_->PackCoded({matrix}, Precision::kBf16));
    return matrices_.back().get();
  }

  // `call(i)` is the i-th of many; different i should not find their data in a cache.
  void Time(const std::string& name, int64_t bytes, int64_t flops,
            const std::function<void(int)>& call) {
    if (name.find(wanted_) == std::string::npos) return;
    constexpr int kWarm = 3;
    constexpr int kRounds = 5;
    constexpr double kRoundSeconds = 0.02;
    for (int i = 0; i < kWarm; ++i) call(i);
    const double once = Seconds(kWarm, call) / kWarm;
    const int calls = std::clamp(static_cast<int>(kRoundSeconds / once), 3, 2000);
    std::vector<double> seconds;
    for (int round = 0; round < kRounds; ++round) seconds.push_back(Seconds(calls, call) / calls);
    std::sort(seconds.begin(), seconds.end());
    const double median = seconds[kRounds / 2];
    CHECK_OK(ops_->status());
    const double rate = static_cast<double>(bytes) / median / 1e9;
    if (copy_rate_ == 0) copy_rate_ = rate;
    std::printf("%-44s %10.1f us %10.2f MB %8.0f GB/s %5.1f%% of copy %8.1f TFLOP/s\n",
                name.c_str(), median * 1e6, static_cast<double>(bytes) / 1e6, rate,
                100 * rate / copy_rate_, static_cast<double>(flops) / median / 1e12);
    std::fflush(stdout);
  }

 private:
  double Seconds(int calls, const std::function<void(int)>& call) {
    ops_->Synchronize();
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < calls; ++i) call(i);
    ops_->Synchronize();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  std::string wanted_;
  std::unique_ptr<Ops> ops_;
  std::vector<Buffer> buffers_;
  std::vector<std::unique_ptr<PackedMatrix>> matrices_;
  std::vector<float> noise_;
  double copy_rate_ = 0;
};

void TimeCopies(Bench& bench) {
  constexpr int kPages = 64;
  constexpr int64_t kPageBytes = 32 * kMib;
  auto* pages = static_cast<std::byte*>(bench.New(2 * kPages * kPageBytes));
  bench.Fill(pages, 2 * kPages * kPageBytes / 4, DType::kF32, 1);
  std::vector<uint32_t> from(kPages);
  std::vector<uint32_t> to(kPages);
  for (uint32_t i = 0; i < kPages; ++i) {
    from[i] = i;
    to[i] = kPages + i;
  }
  const PageCopyParams params = {.pages = pages,
                                 .page_bytes = kPageBytes,
                                 .count = kPages,
                                 .from = bench.Put(from),
                                 .to = bench.Put(to)};
  bench.Time("copy of 2 GiB", 2 * kPages * kPageBytes, 0,
             [&](int) { bench.ops().PageCopy(params); });
}

// The product with each of `weights` in turn: more than fits in any cache.
void TimeProducts(Bench& bench, const std::string& name,
                  const std::vector<const PackedMatrix*>& weights,
                  const std::vector<int64_t>& rows) {
  const int64_t outputs = weights[0]->outputs();
  const int64_t inputs = weights[0]->inputs();
  const int64_t most = *std::max_element(rows.begin(), rows.end());
  Tensor x = bench.Random(most, inputs, DType::kF32);
  Tensor out = bench.Random(most, outputs, DType::kF32);
  std::vector<float> first_row;
  for (const int64_t count : rows) {
    x.rows = out.rows = count;
    bench.ops().Linear({.x = x, .w = weights[0], .out = out});
    const std::vector<float> row = bench.FirstRow(out);
    if (first_row.empty()) first_row = row;
    if (row != first_row) std::printf("row 0 has other bits with %d rows:\n", int(count));
    bench.Time(
        absl::StrCat("linear ", name, " ", count, " rows"),
        weights[0]->bytes() + count * (inputs + outputs) * 4, 2 * count * outputs * inputs,
        [&](int i) { bench.ops().Linear({.x = x, .w = weights[i % weights.size()], .out = out}); });
  }
}

// Of how many matrices `bytes` long calls take turns with.
int64_t MatricesOf(int64_t bytes) { return std::clamp<int64_t>(200 * kMib / bytes + 1, 1, 24); }

void TimeLinear(Bench& bench, const std::string& name, int64_t outputs, int64_t inputs,
                Precision precision, const std::vector<int64_t>& rows) {
  if (!bench.Wants("linear " + name)) return;
  std::vector<const PackedMatrix*> weights;
  for (int64_t i = 0; i < MatricesOf(outputs * inputs * 2); ++i) {
    weights.push_back(bench.Weights(outputs, inputs, precision));
  }
  TimeProducts(bench, name, weights, rows);
}

// The matrices of a layer of Qwen3-8B as codes.
void TimeCodes(Bench& bench, const std::vector<int64_t>& rows) {
  using enum CodeFormat;
  const CodedFormat formats[] = {{"int4-g64", kInt4, 64, ScaleFormat::kBf16},
                                 {"int4-g32", kInt4, 32, ScaleFormat::kBf16},
                                 {"int4-g128 f16", kInt4, 128, ScaleFormat::kF16},
                                 {"int8", kInt8, int64_t{1} << 20, ScaleFormat::kBf16},
                                 {"fp8", kFp8E4M3, 128, ScaleFormat::kF32},
                                 {"mxfp4", kFp4E2M1, 32, ScaleFormat::kE8M0}};
  const int64_t shapes[][2] = {
      {24576, 4096}, {12288, 4096}, {4096, 12288}, {6144, 4096}, {4096, 4096}};
  for (const CodedFormat& format : formats) {
    for (const auto& [outputs, inputs] : shapes) {
      const std::string name = absl::StrCat(format.name, " ", outputs, " x ", inputs);
      if (!bench.Wants("linear " + name)) continue;
      std::vector<const PackedMatrix*> weights = {bench.Codes(format, outputs, inputs)};
      const int64_t count = MatricesOf(weights[0]->bytes());
      while (static_cast<int64_t>(weights.size()) < count) {
        weights.push_back(bench.Codes(format, outputs, inputs));
      }
      TimeProducts(bench, name, weights, rows);
    }
  }
}

void TimeExperts(Bench& bench, const std::vector<int64_t>& tokens) {
  constexpr int kExperts = 128;
  constexpr int kTopK = 8;
  constexpr int64_t kHidden = 2048;
  constexpr int64_t kSize = 768;
  std::vector<ExpertWeights> experts(kExperts);
  for (ExpertWeights& expert : experts) {
    expert.gate_up = bench.Weights(2 * kSize, kHidden, Precision::kBf16);
    expert.down = bench.Weights(kHidden, kSize, Precision::kBf16);
  }
  const auto list = bench.ops().ListExperts(experts);
  const int64_t expert_bytes = 3 * kSize * kHidden * 2;
  std::mt19937 random(2);
  for (const int64_t count : tokens) {
    std::vector<int32_t> order(kExperts);
    for (int e = 0; e < kExperts; ++e) order[e] = e;
    std::vector<int32_t> chosen;
    std::vector<bool> used(kExperts, false);
    for (int64_t token = 0; token < count; ++token) {
      std::shuffle(order.begin(), order.end(), random);
      for (int k = 0; k < kTopK; ++k) {
        chosen.push_back(order[k]);
        used[order[k]] = true;
      }
    }
    const int64_t active = std::count(used.begin(), used.end(), true);
    const MoeExpertsParams params = {
        .x = bench.Random(count, kHidden, DType::kF32),
        .experts = list.get(),
        .top_k = kTopK,
        .chosen = bench.Put(chosen),
        .weights = bench.Put(std::vector<float>(count * kTopK, 0.125F)),
        .out = bench.Random(count, kHidden, DType::kF32),
        .accumulate = false};
    bench.Time(absl::StrCat("moe_experts ", count, " tokens, ", active, " experts"),
               active * expert_bytes + count * kHidden * 8, 2 * count * kTopK * 3 * kSize * kHidden,
               [&](int) { bench.ops().MoeExperts(params); });
  }
}

struct Cache {
  KvStream k;
  KvStream v;
  BlockTables tables;
};

Cache MakeCache(Bench& bench, int sequences, int blocks, int kv_heads, int head_dim,
                int page_entries = kBlockTokens) {
  const int64_t stream_bytes = int64_t{kv_heads} * page_entries * head_dim * 2;
  const int64_t pages = int64_t{sequences} * blocks;
  auto* memory = static_cast<std::byte*>(bench.New(pages * 2 * stream_bytes));
  bench.Fill(memory, pages * stream_bytes, DType::kBf16, 1);
  std::vector<uint32_t> table(pages);
  for (uint32_t i = 0; i < table.size(); ++i) table[i] = i;
  std::shuffle(table.begin(), table.end(), std::mt19937(3));
  Cache cache;
  cache.k = {.base = memory,
             .page_bytes = 2 * stream_bytes,
             .entries_per_page = page_entries,
             .kv_heads = kv_heads,
             .head_dim = head_dim,
             .dtype = DType::kBf16};
  cache.v = cache.k;
  cache.v.base += stream_bytes;
  cache.tables = {bench.Put(table), blocks};
  return cache;
}

// `count` new tokens for each sequence; they end after `length` tokens, each sequence `stagger`
// tokens before the one in front of it.
BatchView MakeBatch(Bench& bench, int sequences, int length, int count, int stagger = 0) {
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

void TimeAttention(Bench& bench, int sequences, int length, int count) {
  constexpr int kHeads = 32;
  constexpr int kKvHeads = 4;
  constexpr int kHeadDim = 128;
  const Cache cache = MakeCache(bench, sequences, length / kBlockTokens, kKvHeads, kHeadDim);
  const int64_t tokens = int64_t{sequences} * count;
  const float one = 1;
  auto* factor = static_cast<float*>(bench.New(sizeof(one)));
  bench.ops().Upload(factor, &one, sizeof(one));
  const PagedAttentionParams params = {.batch = MakeBatch(bench, sequences, length, count),
                                       .heads = kHeads,
                                       .scale = 0.088F,
                                       .q = bench.Random(tokens, kHeads * kHeadDim, DType::kF32),
                                       .k = cache.k,
                                       .v = cache.v,
                                       .tables = cache.tables,
                                       .mix = {.factor = factor},
                                       .out = bench.Random(tokens, kHeads * kHeadDim, DType::kF32)};
  const int64_t seen =
      int64_t{sequences} * (int64_t{count} * length - int64_t{count} * (count - 1) / 2);
  bench.Time(absl::StrCat("paged_attention ", sequences, " x ", length, ", ", count, " new"),
             int64_t{sequences} * length * kKvHeads * kHeadDim * 4, 4 * seen * kHeads * kHeadDim,
             [&](int) { bench.ops().PagedAttention(params); });
}

// One new token for each sequence, at the sizes of DeepSeek-V2-Lite, with the products that bring
// queries to the latent's space and results back.
void TimeLatentAttention(Bench& bench, int sequences, int length) {
  constexpr MlaDims kDims = {
      .heads = 16, .nope_dim = 128, .rope_dim = 64, .value_dim = 128, .latent_dim = 512};
  constexpr int kEntry = kDims.latent_dim + kDims.rope_dim;
  const Cache cache = MakeCache(bench, sequences, length / kBlockTokens, 1, kEntry);
  std::vector<MlaHeadWeights> weights(kDims.heads);
  for (MlaHeadWeights& head : weights) {
    head.key_up = bench.Weights(kDims.nope_dim, kDims.latent_dim, Precision::kBf16);
    head.key_down = bench.Weights(kDims.latent_dim, kDims.nope_dim, Precision::kBf16);
    head.value_up = bench.Weights(kDims.value_dim, kDims.latent_dim, Precision::kBf16);
  }
  const MlaAttentionParams params = {
      .batch = MakeBatch(bench, sequences, length, 1),
      .dims = kDims,
      .scale = 0.072F,
      .q = bench.Random(sequences, kDims.heads * (kDims.nope_dim + kDims.rope_dim), DType::kF32),
      .latent = cache.k,
      .tables = cache.tables,
      .weights = weights.data(),
      .out = bench.Random(sequences, kDims.heads * kDims.value_dim, DType::kF32)};
  const int64_t entries = int64_t{sequences} * length;
  bench.Time(absl::StrCat("mla_attention ", sequences, " x ", length, ", 1 new"),
             entries * kEntry * 2 +
                 int64_t{kDims.heads} * kDims.latent_dim * (kDims.nope_dim + kDims.value_dim) * 2,
             2 * entries * kDims.heads * (kEntry + kDims.latent_dim),
             [&](int) { bench.ops().MlaAttention(params); });
}

// NSA's three branches for tokens of sequences of `length`, and full attention to compare: all with
// 32 query and 4 KV heads of 128, blocks of 32 tokens every 16, 16 of 64 selected, a window of 512.
// Of one new token for each of 16 sequences, one ends a block.
class NsaBench {
 public:
  NsaBench(Bench& bench, int sequences, int length, int count)
      : bench_(bench),
        shape_(absl::StrCat(" ", sequences, " x ", length, ", ", count, " new")),
        batch_(MakeBatch(bench, sequences, length, count, /*stagger=*/1)),
        raw_(MakeCache(bench, sequences, length / kBlockTokens, kKvHeads, kHeadDim)),
        compressed_(MakeCache(bench, sequences, length / kBlockTokens, kKvHeads, kHeadDim,
                              kBlockTokens / kSizes.compress_stride)),
        q_(bench.Random(batch_.tokens, kHeads * kHeadDim, DType::kF32)),
        out_(bench.Random(batch_.tokens, kHeads * kHeadDim, DType::kF32)),
        selected_(static_cast<int32_t*>(
            bench.New(int64_t{batch_.tokens} * kKvHeads * kSizes.selected_blocks * 4))),
        factor_(bench.Put(std::vector<float>{1})) {
    const auto random = [&](int64_t rows) {
      return bench.Random(rows, kHeadDim, DType::kF32, 0.1F).f32();
    };
    phi_ = {random(kSizes.compress_block), random(kHeadDim), random(kHeadDim)};
  }

  void Run() {
    Time("nsa_compress", [&] { Compress(); });
    Time("nsa_select", [&] { Select(); });
    Time("nsa_attention", [&] { AttendSelected(); });
    Time("nsa window", [&] { Attend(kWindow); });
    Time("nsa all branches", [&] {
      Compress();
      Select();
      AttendSelected();
      Attend(kWindow);
    });
    Time("nsa none, full attention", [&] { Attend(0); });
  }

 private:
  static constexpr int kHeads = 32;
  static constexpr int kKvHeads = 4;
  static constexpr int kHeadDim = 128;
  static constexpr int kWindow = 512;
  static constexpr float kScale = 0.088F;
  static constexpr NsaSizes kSizes = {.compress_block = 32,
                                      .compress_stride = 16,
                                      .selected_blocks = 16,
                                      .initial_blocks = 1,
                                      .local_blocks = 2};

  void Time(const std::string& name, const std::function<void()>& call) {
    bench_.Time(name + shape_, 0, 0, [&](int) { call(); });
  }

  void Compress() {
    bench_.ops().NsaCompress({.batch = batch_,
                              .sizes = kSizes,
                              .raw_k = raw_.k,
                              .raw_v = raw_.v,
                              .raw_tables = raw_.tables,
                              .phi_k = phi_,
                              .phi_v = phi_,
                              .k_norm = phi_.position,
                              .eps = 1e-6F,
                              .k = compressed_.k,
                              .v = compressed_.v,
                              .tables = compressed_.tables});
  }
  void Select() {
    bench_.ops().NsaSelect({.batch = batch_,
                            .sizes = kSizes,
                            .heads = kHeads,
                            .scale = kScale,
                            .q = q_,
                            .k = compressed_.k,
                            .v = compressed_.v,
                            .tables = compressed_.tables,
                            .mix = {.factor = factor_},
                            .out = out_,
                            .selected = selected_});
  }
  void AttendSelected() {
    bench_.ops().NsaAttention({.batch = batch_,
                               .heads = kHeads,
                               .selected_blocks = kSizes.selected_blocks,
                               .scale = kScale,
                               .q = q_,
                               .k = raw_.k,
                               .v = raw_.v,
                               .tables = raw_.tables,
                               .selected = selected_,
                               .mix = {.factor = factor_, .accumulate = true},
                               .out = out_});
  }
  // To the last `window` tokens; 0: to all.
  void Attend(int window) {
    bench_.ops().PagedAttention({.batch = batch_,
                                 .heads = kHeads,
                                 .window = window,
                                 .scale = kScale,
                                 .q = q_,
                                 .k = raw_.k,
                                 .v = raw_.v,
                                 .tables = raw_.tables,
                                 .mix = {.factor = factor_, .accumulate = window > 0},
                                 .out = out_});
  }

  Bench& bench_;
  std::string shape_;
  BatchView batch_;
  Cache raw_;
  Cache compressed_;
  Tensor q_;
  Tensor out_;
  int32_t* selected_;
  const float* factor_;
  NsaPhi phi_;
};

void TimeRows(Bench& bench, int64_t tokens) {
  constexpr int64_t kHidden = 2048;
  const Tensor x = bench.Random(tokens, kHidden, DType::kF32);
  const Tensor out = bench.Random(tokens, kHidden, DType::kF32);
  const Tensor weight = bench.Random(1, kHidden, DType::kF32);
  bench.Time(absl::StrCat("rms_norm ", tokens, " rows"), tokens * kHidden * 8, 0, [&](int) {
    bench.ops().RmsNorm({.x = x, .weight = weight, .eps = 1e-6F, .out = out});
  });
  constexpr int kExperts = 128;
  constexpr int kTopK = 8;
  MoeRouteParams route = {.logits = bench.Random(tokens, kExperts, DType::kF32),
                          .top_k = kTopK,
                          .experts = static_cast<int32_t*>(bench.New(tokens * kTopK * 4)),
                          .weights = static_cast<float*>(bench.New(tokens * kTopK * 4)),
                          .scoring = RouterScoring::kSoftmax};
  bench.Time(absl::StrCat("moe_route ", tokens, " rows"), tokens * kExperts * 4, 0,
             [&](int) { bench.ops().MoeRoute(route); });
  std::vector<const PackedMatrix*> routers;
  for (int i = 0; i < 16; ++i) {
    routers.push_back(bench.Weights(kExperts, kHidden, Precision::kF32));
  }
  route.x = x;
  bench.Time(absl::StrCat("moe_route with router, ", tokens, " rows"),
             kExperts * kHidden * 2 + tokens * kHidden * 4, 2 * tokens * kExperts * kHidden,
             [&](int i) {
               route.router = routers[i % routers.size()];
               bench.ops().MoeRoute(route);
             });
}

// One new token for each sequence, queries and keys normed and rotated.
void TimeQkvWrite(Bench& bench, int sequences) {
  constexpr int kHeads = 32;
  constexpr int kKvHeads = 4;
  constexpr int kHeadDim = 128;
  constexpr int kLength = 1024;
  constexpr int64_t kCols = (kHeads + 2 * kKvHeads) * kHeadDim;
  const Cache cache = MakeCache(bench, sequences, kLength / kBlockTokens, kKvHeads, kHeadDim);
  const Tensor projected = bench.Random(sequences, kCols, DType::kF32);
  const auto columns = [&](int first, int heads) {
    Tensor part = projected;
    part.data = projected.f32() + int64_t{first} * kHeadDim;
    part.cols = int64_t{heads} * kHeadDim;
    return part;
  };
  QkvWriteParams params;
  params.kv = {.batch = MakeBatch(bench, sequences, kLength, 1),
               .k = columns(kHeads, kKvHeads),
               .v = columns(kHeads + kKvHeads, kKvHeads),
               .k_stream = cache.k,
               .v_stream = cache.v,
               .tables = cache.tables};
  params.q = {.x = columns(0, kHeads),
              .heads = kHeads,
              .head_dim = kHeadDim,
              .norm_weight = bench.Random(1, kHeadDim, DType::kF32).f32(),
              .eps = 1e-6F,
              .inverse_frequency = bench.Random(1, kHeadDim / 2, DType::kF32).f32(),
              .position = params.kv.batch.position};
  params.k = params.q;
  params.k.x = params.kv.k;
  params.k.heads = kKvHeads;
  bench.Time(absl::StrCat("qkv_write ", sequences, " tokens"), sequences * kCols * 8, 0,
             [&](int) { bench.ops().QkvWrite(params); });
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) {
  troupe::Bench bench(argc > 1 ? argv[1] : "cuda", argc > 2 ? argv[2] : "");
  const std::vector<int64_t> rows = {1, 8, 32, 128, 256, 2048};
  troupe::TimeCopies(bench);
  troupe::TimeRows(bench, 1);
  troupe::TimeRows(bench, 256);
  troupe::TimeQkvWrite(bench, 1);
  troupe::TimeQkvWrite(bench, 256);
  troupe::TimeLinear(bench, "8192 x 8192", 8192, 8192, troupe::Precision::kBf16, {8192});
  troupe::TimeLinear(bench, "qkv 5120 x 2048", 5120, 2048, troupe::Precision::kBf16, rows);
  troupe::TimeLinear(bench, "out 2048 x 4096", 2048, 4096, troupe::Precision::kBf16, rows);
  troupe::TimeLinear(bench, "router 128 x 2048 f32", 128, 2048, troupe::Precision::kF32, rows);
  troupe::TimeLinear(bench, "logits 151936 x 2048", 151936, 2048, troupe::Precision::kBf16,
                     {1, 32, 256});
  troupe::TimeCodes(bench, {1, 4, 8, 16, 32, 64, 256, 2048});
  troupe::TimeExperts(bench, {1, 8, 32, 128, 256, 2048, 4096});
  for (const int sequences : {1, 8, 64}) troupe::TimeAttention(bench, sequences, 8192, 1);
  troupe::TimeAttention(bench, 256, 1152, 1);
  troupe::TimeAttention(bench, 1, 2048, 2048);
  for (const int length : {1024, 2048, 4096}) troupe::TimeAttention(bench, 1, length, 1);
  troupe::TimeAttention(bench, 1, 8192, 8192);
  troupe::TimeAttention(bench, 1, 32768, 32768);
  troupe::TimeAttention(bench, 1, 8192, 512);
  troupe::TimeLatentAttention(bench, 1, 8192);
  troupe::TimeLatentAttention(bench, 64, 8192);
  for (const int length : {8192, 16384, 32768, 65536}) troupe::NsaBench(bench, 16, length, 1).Run();
  troupe::NsaBench(bench, 1, 65536, 65536).Run();
  return 0;
}
