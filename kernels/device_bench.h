// What the parts of kernels_device_bench (kernels/device_bench.cc) share: a device with data on it,
// and how calls are timed.
//
// Thread model: one thread. Ownership: a Bench owns the device and everything that it handed out,
// until Forget().
#ifndef TROUPE_KERNELS_DEVICE_BENCH_H_
#define TROUPE_KERNELS_DEVICE_BENCH_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/linear/coded_testing.h"
#include "kernels/ops.h"

namespace troupe {

inline constexpr int64_t kMib = 1 << 20;

class Bench {
 public:
  // `device` as MakeOps takes it, or "own": the first GPU without cuBLASLt. What has not `wanted`
  // in its name is not timed.
  Bench(const std::string& device, std::string wanted);

  Ops& ops() { return *ops_; }
  // Whether any name that begins so may be timed.
  bool Wants(const std::string& begin) const;

  void* New(int64_t bytes);
  // Frees what was made since the last call.
  void Forget();

  // Random numbers of mean zero; what is longer than the supply repeats it.
  Tensor Random(int64_t rows, int64_t cols, DType dtype, float scale = 1);
  void Fill(void* to, int64_t count, DType dtype, float scale);

  std::vector<float> FirstRow(const Tensor& tensor);

  template <class T>
  T* Put(const std::vector<T>& values) {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
    auto* to = static_cast<T*>(New(bytes));
    ops_->Upload(to, values.data(), bytes);
    return to;
  }

  const PackedMatrix* Weights(int64_t outputs, int64_t inputs, Precision precision);
  // Random codes; scales that make of them weights of about one over the inputs' square root.
  const PackedMatrix* Codes(const CodedFormat& format, int64_t outputs, int64_t inputs);

  // Prints what a call takes. `call(i)` is the i-th of many; different i should not find their data
  // in a cache: the first `turns` have data of their own. Calls run as a graph of a multiple of
  // `turns` of them where the device keeps such (kernels/replays.h), as a decode step does.
  void Time(const std::string& name, int64_t bytes, int64_t flops,
            const std::function<void(int)>& call, int turns = 1);

 private:
  // Of a section of `calls` calls, `sections` times: of one call.
  double Seconds(Replays& replays, int calls, int sections, const std::function<void(int)>& call);
  void TimeCopies();

  std::string wanted_;
  std::unique_ptr<Ops> ops_;
  std::vector<Buffer> buffers_;
  std::vector<std::unique_ptr<PackedMatrix>> matrices_;
  std::vector<float> noise_;
  double copy_rate_ = 0;
};

// Dense products of bf16 weights and of codes, and experts.
void BenchProducts(Bench& bench);
// Operations on rows: norms, routers, and what writes keys and values.
void BenchRows(Bench& bench);
// Attention over pages: grouped queries, latents, and NSA's branches.
void BenchAttention(Bench& bench);
void BenchNsa(Bench& bench);

// ---- Pages of keys and values, in turns (see Bench::Time) ----

struct BenchPages {
  std::vector<KvStream> k;  // [turns]
  std::vector<KvStream> v;
  BlockTables tables;

  int turns() const { return static_cast<int>(k.size()); }
};

// bf16 or kE4M3, in random order; as many turns as make them too many for a cache.
BenchPages MakePages(Bench& bench, int sequences, int blocks, int kv_heads, int head_dim,
                     int page_entries = kBlockTokens, DType dtype = DType::kBf16);

// `count` new tokens for each sequence; they end after `length` tokens, each sequence `stagger`
// tokens before the one in front of it.
BatchView MakeBatch(Bench& bench, int sequences, int length, int count, int stagger = 0);

}  // namespace troupe

#endif  // TROUPE_KERNELS_DEVICE_BENCH_H_
