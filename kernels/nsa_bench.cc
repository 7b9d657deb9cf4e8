// NSA at Abacus' sizes (8 query heads, 2 KV heads of 64; compression 32 by 16; 8 blocks of 64;
// window 256): compression, selection, selected and window attention of one layer, beside full
// attention over the same context.
#include <vector>

#include "benchmark/benchmark.h"
#include "kernels/attention_bench_util.h"
#include "kernels/bench_util.h"

namespace troupe {
namespace {

constexpr int kHeads = 8;
constexpr int kKvHeads = 2;
constexpr int kHeadDim = 64;
constexpr int kWindow = 256;
constexpr NsaSizes kSizes = {.compress_block = 32,
                             .compress_stride = 16,
                             .selected_blocks = 8,
                             .initial_blocks = 1,
                             .local_blocks = 2};

// One NSA layer of `rows` sequences with full caches.
class NsaLayer {
 public:
  NsaLayer(int rows, int start, int count)
      : batch(rows, start, count),
        raw(BenchOps(), rows, start + count, {}),
        compressed(BenchOps(), rows, start + count,
                   {.entries_per_page = kBlockTokens / kSizes.compress_stride}),
        tokens(BenchOps(), rows, start + count, {}),
        window(BenchOps(), rows, start + count, {}),
        q_(BenchVector(batch.view().tokens * kHeads * kHeadDim)),
        out_(q_.size()),
        factors_(batch.view().tokens * kHeads, 1.0F),
        selected_(batch.view().tokens * kKvHeads * kSizes.selected_blocks),
        phi_(BenchVector(kHeadDim * (kSizes.compress_block + 2 * kHeadDim + 1))) {}

  void Compress() {
    const NsaPhi phi = {phi_.data(), phi_.data() + kHeadDim * kSizes.compress_block,
                        phi_.data() + kHeadDim * (kSizes.compress_block + kHeadDim)};
    BenchOps().NsaCompress({.batch = batch.view(),
                            .sizes = kSizes,
                            .raw_k = raw.k(),
                            .raw_v = raw.v(),
                            .raw_tables = raw.tables(),
                            .phi_k = phi,
                            .phi_v = phi,
                            .k_norm = phi_.data() + phi_.size() - kHeadDim,
                            .eps = 1e-6F,
                            .k = compressed.k(),
                            .v = compressed.v(),
                            .tables = compressed.tables()});
  }
  void Select() {
    BenchOps().NsaSelect({.batch = batch.view(),
                          .sizes = kSizes,
                          .heads = kHeads,
                          .scale = kScale,
                          .q = Heads(q_),
                          .k = compressed.k(),
                          .v = compressed.v(),
                          .tables = compressed.tables(),
                          .mix = Mix(false),
                          .out = Heads(out_),
                          .selected = selected_.data()});
  }
  void AttendSelected() {
    BenchOps().NsaAttention({.batch = batch.view(),
                             .heads = kHeads,
                             .selected_blocks = kSizes.selected_blocks,
                             .scale = kScale,
                             .q = Heads(q_),
                             .k = tokens.k(),
                             .v = tokens.v(),
                             .tables = tokens.tables(),
                             .selected = selected_.data(),
                             .mix = Mix(true),
                             .out = Heads(out_)});
  }
  void Attend(const BenchPages& pages, int window) {
    BenchOps().PagedAttention({.batch = batch.view(),
                               .heads = kHeads,
                               .window = window,
                               .scale = kScale,
                               .q = Heads(q_),
                               .k = pages.k(),
                               .v = pages.v(),
                               .tables = pages.tables(),
                               .mix = Mix(true),
                               .out = Heads(out_)});
  }
  void All() {
    Compress();
    Select();
    AttendSelected();
    Attend(window, kWindow);
  }

  BenchBatch batch;
  BenchPages raw;
  BenchPages compressed;
  BenchPages tokens;
  BenchPages window;

 private:
  static constexpr float kScale = 0.125F;

  Tensor Heads(std::vector<float>& values) {
    return {values.data(), DType::kF32, batch.view().tokens, kHeads * kHeadDim, kHeads * kHeadDim};
  }
  HeadMix Mix(bool accumulate) const {
    return {.factor = factors_.data(),
            .token_stride = kHeads,
            .head_stride = 1,
            .accumulate = accumulate};
  }

  std::vector<float> q_;
  std::vector<float> out_;
  std::vector<float> factors_;
  std::vector<int32_t> selected_;
  std::vector<float> phi_;
};

// Compressed, selected and window entries of a decode step.
int64_t DecodeBytes(const NsaLayer& layer, int rows, int context) {
  const int64_t entries =
      context / kSizes.compress_stride + kSizes.selected_blocks * kBlockTokens + kWindow;
  return rows * entries * layer.tokens.entry_bytes();
}

// Each iteration is the next token, 16 of them over and over: compression costs its average.
template <class Function>
void Decode(benchmark::State& state, const Function& step, bool full) {
  const int rows = static_cast<int>(state.range(0));
  const int context = static_cast<int>(state.range(1));
  NsaLayer layer(rows, context - 1, 1);
  layer.Select();
  int back = 0;
  for (auto _ : state) {
    layer.batch.MoveTo(context - 1 - back);
    back = (back + 1) % 16;
    step(layer);
  }
  const int64_t bytes = full ? int64_t{rows} * context * layer.tokens.entry_bytes()
                             : DecodeBytes(layer, rows, context);
  Report(state, {.bytes = bytes, .working_set_bytes = bytes});
}

void BM_DecodeFull(benchmark::State& state) {
  Decode(
      state, [](NsaLayer& layer) { layer.Attend(layer.tokens, 0); }, true);
}
void BM_DecodeNsa(benchmark::State& state) {
  Decode(
      state, [](NsaLayer& layer) { layer.All(); }, false);
}
void BM_DecodeCompress(benchmark::State& state) {
  Decode(
      state, [](NsaLayer& layer) { layer.Compress(); }, false);
}
void BM_DecodeSelect(benchmark::State& state) {
  Decode(
      state, [](NsaLayer& layer) { layer.Select(); }, false);
}
void BM_DecodeSelected(benchmark::State& state) {
  Decode(
      state, [](NsaLayer& layer) { layer.AttendSelected(); }, false);
}

// A whole prompt, in one step.
template <class Function>
void Prefill(benchmark::State& state, const Function& step) {
  const int tokens = static_cast<int>(state.range(0));
  NsaLayer layer(1, 0, tokens);
  layer.Select();
  for (auto _ : state) step(layer);
  state.counters["tokens/s"] = benchmark::Counter(static_cast<double>(state.iterations()) * tokens,
                                                  benchmark::Counter::kIsRate);
}

void BM_PrefillFull(benchmark::State& state) {
  Prefill(state, [](NsaLayer& layer) { layer.Attend(layer.tokens, 0); });
}
void BM_PrefillNsa(benchmark::State& state) {
  Prefill(state, [](NsaLayer& layer) { layer.All(); });
}
void BM_PrefillCompress(benchmark::State& state) {
  Prefill(state, [](NsaLayer& layer) { layer.Compress(); });
}
void BM_PrefillSelect(benchmark::State& state) {
  Prefill(state, [](NsaLayer& layer) { layer.Select(); });
}
void BM_PrefillSelected(benchmark::State& state) {
  Prefill(state, [](NsaLayer& layer) { layer.AttendSelected(); });
}

void DecodeShapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"batch", "context"})
      ->ArgsProduct({{1, 8, 32}, {1024, 4096, 16384, 65536}})
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}
void PrefillShapes(benchmark::internal::Benchmark* bench) {
  bench->ArgName("tokens")
      ->RangeMultiplier(4)
      ->Range(1024, 16384)
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}

BENCHMARK(BM_DecodeFull)->Apply(DecodeShapes);
BENCHMARK(BM_DecodeNsa)->Apply(DecodeShapes);
BENCHMARK(BM_DecodeCompress)->Apply(DecodeShapes);
BENCHMARK(BM_DecodeSelect)->Apply(DecodeShapes);
BENCHMARK(BM_DecodeSelected)->Apply(DecodeShapes);
BENCHMARK(BM_PrefillFull)->Apply(PrefillShapes);
BENCHMARK(BM_PrefillNsa)->Apply(PrefillShapes);
BENCHMARK(BM_PrefillCompress)->Apply(PrefillShapes);
BENCHMARK(BM_PrefillSelect)->Apply(PrefillShapes);
BENCHMARK(BM_PrefillSelected)->Apply(PrefillShapes);

}  // namespace
}  // namespace troupe
