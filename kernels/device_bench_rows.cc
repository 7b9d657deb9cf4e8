#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/device_bench.h"

namespace troupe {
namespace {

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
  bench.Time(
      absl::StrCat("moe_route with router, ", tokens, " rows"),
      kExperts * kHidden * 2 + tokens * kHidden * 4, 2 * tokens * kExperts * kHidden,
      [&](int i) {
        route.router = routers[i % routers.size()];
        bench.ops().MoeRoute(route);
      },
      static_cast<int>(routers.size()));
  bench.Forget();
}

// One new token for each sequence, queries and keys normed and rotated.
void TimeQkvWrite(Bench& bench, int sequences) {
  constexpr int kHeads = 32;
  constexpr int kKvHeads = 4;
  constexpr int kHeadDim = 128;
  constexpr int kLength = 1024;
  constexpr int64_t kCols = (kHeads + 2 * kKvHeads) * kHeadDim;
  const BenchPages pages = MakePages(bench, sequences, kLength / kBlockTokens, kKvHeads, kHeadDim);
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
               .k_stream = pages.k[0],
               .v_stream = pages.v[0],
               .tables = pages.tables};
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
  bench.Forget();
}

}  // namespace

void BenchRows(Bench& bench) {
  for (const int tokens : {1, 256}) {
    TimeRows(bench, tokens);
    TimeQkvWrite(bench, tokens);
  }
}

}  // namespace troupe
