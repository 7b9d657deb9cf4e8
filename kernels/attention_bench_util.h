// Sequences with full caches, for the benches of attention.
//
// Ownership: the objects own their memory; views of them must not outlive them.
#ifndef TROUPE_KERNELS_ATTENTION_BENCH_UTIL_H_
#define TROUPE_KERNELS_ATTENTION_BENCH_UTIL_H_

#include <cstdint>
#include <vector>

#include "kernels/ops.h"

namespace troupe {

// `rows` sequences with `count` new tokens each, after `start` others.
class BenchBatch {
 public:
  BenchBatch(int rows, int start, int count);

  // Moves every sequence; row r by another (r mod 16) tokens back, so that some sequence finishes a
  // compressed entry in most steps, as in serving.
  void MoveTo(int start);

  const BatchView& view() const { return view_; }

 private:
  std::vector<uint32_t> slot_;
  std::vector<int32_t> start_, first_, position_, token_row_;
  BatchView view_;
};

// Pages of one layer for `rows` sequences of `tokens` tokens, in shuffled order, filled at random.
class BenchPages {
 public:
  struct Shape {
    int kv_heads = 2;
    int head_dim = 64;
    int entries_per_page = kBlockTokens;
    DType dtype = DType::kBf16;
  };
  BenchPages(Ops& ops, int rows, int64_t tokens, const Shape& shape);

  const KvStream& k() const { return k_; }
  const KvStream& v() const { return v_; }
  BlockTables tables() const { return {tables_.data(), stride_}; }
  // Of keys and values of one entry.
  int64_t entry_bytes() const { return entry_bytes_; }

 private:
  Buffer memory_;
  std::vector<uint32_t> tables_;
  int64_t stride_;
  int64_t entry_bytes_;
  KvStream k_;
  KvStream v_;
};

std::vector<float> BenchVector(int64_t count);

}  // namespace troupe

#endif  // TROUPE_KERNELS_ATTENTION_BENCH_UTIL_H_
