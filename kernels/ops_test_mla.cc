// Runner of multi-head latent attention.
#include <algorithm>
#include <cmath>
#include <memory>

#include "kernels/ops_test_cases.h"

namespace troupe {
namespace {

// The heads' matrices on a device.
class HeadMatrices {
 public:
  HeadMatrices(const MlaCase& c, TestDevice& device, TestRandom& random) {
    const MlaDims& dims = c.dims;
    const float scale = 1 / std::sqrt(static_cast<float>(dims.latent_dim));
    for (int head = 0; head < dims.heads; ++head) {
      const Matrix key_up = RandomMatrix(dims.nope_dim, dims.latent_dim, random, scale);
      Matrix key_down{dims.latent_dim, dims.nope_dim, {}};
      for (int64_t row = 0; row < key_down.rows; ++row) {
        for (int64_t col = 0; col < key_down.cols; ++col) {
          key_down.values.push_back(key_up.Row(col)[row]);
        }
      }
      const Matrix value_up = RandomMatrix(dims.value_dim, dims.latent_dim, random, scale);
      const auto pack = [&](const Matrix& matrix) {
        owned_.push_back(device.ops().Pack({device.Keep(matrix, c.weight_dtype)}, c.precision));
        return owned_.back().get();
      };
      weights_.push_back(
          {.key_up = pack(key_up), .key_down = pack(key_down), .value_up = pack(value_up)});
    }
  }

  const MlaHeadWeights* weights() const { return weights_.data(); }

 private:
  std::vector<std::unique_ptr<PackedMatrix>> owned_;
  std::vector<MlaHeadWeights> weights_;
};

}  // namespace

Outputs RunMlaAttention(const MlaCase& c, const Run& run) {
  TestRandom random(run.seed);
  const std::vector<uint32_t> slots = RandomSlots(run.sequences.size(), random);
  // The stream of values is there and is not looked at.
  TestPages pages({.head_dim = c.dims.latent_dim + c.dims.rope_dim, .dtype = c.dtype}, slots,
                  BlocksFor(run.sequences), random);
  for (size_t row = 0; row < slots.size(); ++row) {
    pages.FillEntries(slots[row], 0, run.sequences[row].start + run.sequences[row].count, random);
  }
  const TestPages::OnDevice cache = pages.Put(run.device);
  const HeadMatrices matrices(c, run.device, random);
  const int tokens = TokensOf(run.sequences);
  const int64_t head_dim = c.dims.nope_dim + c.dims.rope_dim;
  const Matrix q = RandomMatrix(tokens, c.dims.heads * head_dim, random, c.sharpness);
  const int64_t cols = int64_t{c.dims.heads} * c.dims.value_dim;
  // With inputs of products in bf16, what lies on the edge between two of its numbers may be
  // rounded either way: queries and attended latents when absorbed, nothing that counts when
  // expanded. A device that always absorbs rounds them all, each by up to 2^-9 of its value.
  const float tolerance =
      std::max(c.precision == Precision::kBf16 ? 0x1p-6F : 2 * kAttentionTolerance,
               run.device.AttentionTolerance(c.dtype));
  TokenOutput out(run, "out", cols, tolerance * std::max(1.0F, c.sharpness));
  for (const Step& step : run.steps) {
    const StepBatch batch = PutStep(run.device, run.sequences, slots, step);
    const Tensor to = run.device.Put(RandomMatrix(batch.view.tokens, cols, random));
    MlaForm* form = nullptr;
    if (!c.forms.empty()) {
      std::vector<MlaForm> forms;
      for (const int row : batch.rows) forms.push_back(c.forms[row % c.forms.size()]);
      form = run.device.Put(forms);
    }
    run.device.ops().MlaAttention({.batch = batch.view,
                                   .dims = c.dims,
                                   .scale = 1 / std::sqrt(static_cast<float>(head_dim)),
                                   .q = run.device.Put(q.Pick(batch.tokens)),
                                   .latent = cache.k,
                                   .tables = cache.tables,
                                   .weights = matrices.weights(),
                                   .form = form,
                                   .out = to});
    out.Put(batch.tokens, run.device.Get(to).values);
  }
  return {out.output()};
}

}  // namespace troupe
