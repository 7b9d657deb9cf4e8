#include "kernels/ops_test_weights.h"

#include <deque>

namespace troupe {

bool RoundsWeights(const std::optional<CodedFormat>& codes, Precision precision, const Run& run) {
  return codes.has_value() && HasScales(codes->code) && precision == Precision::kBf16 &&
         run.device.rounds_codes();
}

std::unique_ptr<PackedMatrix> PackRandom(const std::vector<int>& parts, int64_t inputs,
                                         const RandomWeights& weights, const Run& run,
                                         TestRandom& random) {
  if (weights.codes.has_value()) {
    std::deque<RandomCodes> codes;
    std::vector<CodedMatrix> views;
    views.reserve(parts.size());
    for (const int rows : parts) {
      views.push_back(
          codes.emplace_back(*weights.codes, rows, inputs, random(), weights.scale).view());
    }
    return run.device.ops().PackCoded(views, weights.precision);
  }
  std::vector<Tensor> tensors;
  tensors.reserve(parts.size());
  for (const int rows : parts) {
    tensors.push_back(
        run.device.Keep(RandomMatrix(rows, inputs, random, weights.scale), weights.dtype));
  }
  return run.device.ops().Pack(tensors, weights.precision);
}

NormedInput NormInput(const Run& run, bool norm, const std::vector<float>& weight,
                      const Matrix& rows, float eps) {
  NormedInput input = {.x = run.device.Put(rows), .norm = {}};
  if (!norm) return input;
  const Matrix weights = {.rows = 1, .cols = rows.cols, .values = weight};
  const Tensor on_device = run.device.Put(weights);
  if (run.device.ops().NormsInputs(rows.rows)) {
    input.norm = {.weight = on_device.f32(), .eps = eps};
    return input;
  }
  run.device.ops().RmsNorm({.x = input.x, .weight = on_device, .eps = eps, .out = input.x});
  return input;
}

}  // namespace troupe
