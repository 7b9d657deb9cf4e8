#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/device_bench.h"

namespace troupe {
namespace {

// The last `count` tokens of each sequence, 32 query and 4 KV heads of 128.
void TimeAttention(Bench& bench, int sequences, int length, int count, DType dtype = DType::kBf16) {
  constexpr int kHeads = 32;
  constexpr int kKvHeads = 4;
  constexpr int kHeadDim = 128;
  const std::string name = absl::StrCat("paged_attention ", sequences, " x ", length, ", ", count,
                                        " new", dtype == DType::kE4M3 ? ", fp8 kv" : "");
  if (!bench.Wants(name)) return;
  if (dtype == DType::kE4M3 &&
      !bench.ops().TakesE4M3({.key_dim = kHeadDim, .value_dim = kHeadDim})) {
    return;
  }
  const BenchPages pages =
      MakePages(bench, sequences, length / kBlockTokens, kKvHeads, kHeadDim, kBlockTokens, dtype);
  const int64_t tokens = int64_t{sequences} * count;
  PagedAttentionParams params = {.batch = MakeBatch(bench, sequences, length, count),
                                 .heads = kHeads,
                                 .scale = 0.088F,
                                 .q = bench.Random(tokens, kHeads * kHeadDim, DType::kF32),
                                 .tables = pages.tables,
                                 .mix = {.factor = bench.Put(std::vector<float>{1})},
                                 .out = bench.Random(tokens, kHeads * kHeadDim, DType::kF32)};
  const int64_t seen =
      int64_t{sequences} * (int64_t{count} * length - int64_t{count} * (count - 1) / 2);
  bench.Time(
      name,
      2 * int64_t{sequences} * length * kKvHeads *
          (kHeadDim * BytesOf(dtype) + ScaleBytesOf(dtype)),
      4 * seen * kHeads * kHeadDim,
      [&](int i) {
        params.k = pages.k[i % pages.turns()];
        params.v = pages.v[i % pages.turns()];
        bench.ops().PagedAttention(params);
      },
      pages.turns());
  bench.Forget();
}

// One new token for each sequence, at the sizes of DeepSeek-V2-Lite, with the products that bring
// queries to the latent's space and results back.
void TimeLatentAttention(Bench& bench, int sequences, int length) {
  constexpr MlaDims kDims = {
      .heads = 16, .nope_dim = 128, .rope_dim = 64, .value_dim = 128, .latent_dim = 512};
  constexpr int kEntry = kDims.latent_dim + kDims.rope_dim;
  const std::string name = absl::StrCat("mla_attention ", sequences, " x ", length, ", 1 new");
  if (!bench.Wants(name)) return;
  const BenchPages pages = MakePages(bench, sequences, length / kBlockTokens, 1, kEntry);
  std::vector<MlaHeadWeights> weights(kDims.heads);
  for (MlaHeadWeights& head : weights) {
    head.key_up = bench.Weights(kDims.nope_dim, kDims.latent_dim, Precision::kBf16);
    head.key_down = bench.Weights(kDims.latent_dim, kDims.nope_dim, Precision::kBf16);
    head.value_up = bench.Weights(kDims.value_dim, kDims.latent_dim, Precision::kBf16);
  }
  MlaAttentionParams params = {
      .batch = MakeBatch(bench, sequences, length, 1),
      .dims = kDims,
      .scale = 0.072F,
      .q = bench.Random(sequences, kDims.heads * (kDims.nope_dim + kDims.rope_dim), DType::kF32),
      .tables = pages.tables,
      .weights = weights.data(),
      .out = bench.Random(sequences, kDims.heads * kDims.value_dim, DType::kF32)};
  const int64_t entries = int64_t{sequences} * length;
  bench.Time(
      name,
      entries * kEntry * 2 +
          int64_t{kDims.heads} * kDims.latent_dim * (kDims.nope_dim + kDims.value_dim) * 2,
      2 * entries * kDims.heads * (kEntry + kDims.latent_dim),
      [&](int i) {
        params.latent = pages.k[i % pages.turns()];
        bench.ops().MlaAttention(params);
      },
      pages.turns());
  bench.Forget();
}

}  // namespace

void BenchAttention(Bench& bench) {
  for (const int sequences : {1, 8, 64}) TimeAttention(bench, sequences, 8192, 1);
  TimeAttention(bench, 256, 1152, 1);
  for (const int length : {1024, 2048, 4096}) TimeAttention(bench, 1, length, 1);
  for (const int length : {2048, 8192, 32768}) TimeAttention(bench, 1, length, length);
  TimeAttention(bench, 1, 8192, 512);
  for (const int sequences : {1, 8, 64}) {
    TimeAttention(bench, sequences, 8192, 1, DType::kE4M3);
  }
  TimeAttention(bench, 256, 1152, 1, DType::kE4M3);
  TimeAttention(bench, 1, 8192, 8192, DType::kE4M3);
  TimeLatentAttention(bench, 1, 8192);
  TimeLatentAttention(bench, 64, 8192);
  TimeLatentAttention(bench, 256, 1152);
}

}  // namespace troupe
