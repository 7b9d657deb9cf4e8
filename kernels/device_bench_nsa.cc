#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/device_bench.h"

namespace troupe {
namespace {

// NSA's three branches for the last tokens of sequences of `length`, and full attention to compare:
// all with 32 query and 4 KV heads of 128, blocks of 32 tokens every 16, 16 of 64 selected, a
// window of 512. Of one new token for each of 16 sequences, one ends a block. The selected and the
// window branch have keys and values of their own, as layers have; full attention reads the former.
class NsaBench {
 public:
  NsaBench(Bench& bench, int sequences, int length, int count)
      : bench_(bench),
        shape_(absl::StrCat(" ", sequences, " x ", length, ", ", count, " new")),
        batch_(MakeBatch(bench, sequences, length, count, /*stagger=*/1)),
        full_(MakePages(bench, sequences, length / kBlockTokens, kKvHeads, kHeadDim)),
        window_(MakePages(bench, sequences, length / kBlockTokens, kKvHeads, kHeadDim)),
        compressed_(MakePages(bench, sequences, length / kBlockTokens, kKvHeads, kHeadDim,
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
    // What one call reads, where each sequence has one new token; prompts read it many times.
    const int64_t sequences = batch_.rows;
    const int64_t entry = int64_t{kKvHeads} * kHeadDim * 2 * 2;
    const int64_t length = batch_.longest;
    const int64_t compressed = sequences * length / kSizes.compress_stride * entry;
    const int64_t selected = sequences * kSizes.selected_blocks * kBlockTokens * entry;
    const int64_t window = sequences * kWindow * entry;
    Time("nsa_compress", 0, [&](int i) { Compress(i); });
    Time("nsa_select", compressed, [&](int i) { Select(i); });
    Time("nsa_attention", selected, [&](int i) { AttendSelected(i); });
    Time("nsa window", window, [&](int i) { Attend(window_, kWindow, i); });
    Time("nsa all branches", compressed + selected + window, [&](int i) {
      Compress(i);
      Select(i);
      AttendSelected(i);
      Attend(window_, kWindow, i);
    });
    Time("nsa none, full attention", sequences * length * entry,
         [&](int i) { Attend(full_, 0, i); });
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

  void Time(const std::string& name, int64_t bytes, const std::function<void(int)>& call) {
    const bool decodes = batch_.tokens == batch_.rows;  // prompts are long, and read much again
    bench_.Time(name + shape_, bytes, 0, call,
                decodes ? std::max({full_.turns(), window_.turns(), compressed_.turns()}) : 1);
  }

  void Compress(int i) {
    bench_.ops().NsaCompress({.batch = batch_,
                              .sizes = kSizes,
                              .raw_k = window_.k[i % window_.turns()],
                              .raw_v = window_.v[i % window_.turns()],
                              .raw_tables = window_.tables,
                              .phi_k = phi_,
                              .phi_v = phi_,
                              .k_norm = phi_.position,
                              .eps = 1e-6F,
                              .k = compressed_.k[i % compressed_.turns()],
                              .v = compressed_.v[i % compressed_.turns()],
                              .tables = compressed_.tables});
  }
  void Select(int i) {
    bench_.ops().NsaSelect({.batch = batch_,
                            .sizes = kSizes,
                            .heads = kHeads,
                            .scale = kScale,
                            .q = q_,
                            .k = compressed_.k[i % compressed_.turns()],
                            .v = compressed_.v[i % compressed_.turns()],
                            .tables = compressed_.tables,
                            .mix = {.factor = factor_},
                            .out = out_,
                            .selected = selected_});
  }
  void AttendSelected(int i) {
    bench_.ops().NsaAttention({.batch = batch_,
                               .heads = kHeads,
                               .selected_blocks = kSizes.selected_blocks,
                               .scale = kScale,
                               .q = q_,
                               .k = full_.k[i % full_.turns()],
                               .v = full_.v[i % full_.turns()],
                               .tables = full_.tables,
                               .selected = selected_,
                               .mix = {.factor = factor_, .accumulate = true},
                               .out = out_});
  }
  // To the last `window` tokens; 0: to all.
  void Attend(const BenchPages& pages, int window, int i) {
    bench_.ops().PagedAttention({.batch = batch_,
                                 .heads = kHeads,
                                 .window = window,
                                 .scale = kScale,
                                 .q = q_,
                                 .k = pages.k[i % pages.turns()],
                                 .v = pages.v[i % pages.turns()],
                                 .tables = pages.tables,
                                 .mix = {.factor = factor_, .accumulate = window > 0},
                                 .out = out_});
  }

  Bench& bench_;
  std::string shape_;
  BatchView batch_;
  BenchPages full_;
  BenchPages window_;
  BenchPages compressed_;
  Tensor q_;
  Tensor out_;
  int32_t* selected_;
  const float* factor_;
  NsaPhi phi_;
};

void TimeNsa(Bench& bench, int sequences, int length, int count) {
  if (!bench.Wants("nsa")) return;
  NsaBench(bench, sequences, length, count).Run();
  bench.Forget();
}

}  // namespace

void BenchNsa(Bench& bench) {
  for (const int length : {8192, 16384, 32768, 65536}) TimeNsa(bench, 16, length, 1);
  TimeNsa(bench, 1, 65536, 65536);
}

}  // namespace troupe
