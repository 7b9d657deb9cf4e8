// Random weights and normed inputs of the runners of products.
//
// Thread model: for one test thread. Ownership: matrices belong to the caller, inputs to the run's
// device.
#ifndef TROUPE_KERNELS_OPS_TEST_WEIGHTS_H_
#define TROUPE_KERNELS_OPS_TEST_WEIGHTS_H_

#include <memory>
#include <optional>
#include <vector>

#include "kernels/ops_test_cases.h"

namespace troupe {

struct RandomWeights {
  DType dtype = DType::kF32;
  Precision precision = Precision::kF32;
  std::optional<CodedFormat> codes = std::nullopt;
  float scale = 1.0F;
};

// Whether the device rounds the numbers that these codes stand for, and the reference does not.
bool RoundsWeights(const std::optional<CodedFormat>& codes, Precision precision, const Run& run);

// Parts of random values, or codes, of the case's format.
std::unique_ptr<PackedMatrix> PackRandom(const std::vector<int>& parts, int64_t inputs,
                                         const RandomWeights& weights, const Run& run,
                                         TestRandom& random);

// Rows as an operation takes them that norms x, where the device wants that, and normed where not.
struct NormedInput {
  Tensor x;
  InputNorm norm;
};
NormedInput NormInput(const Run& run, bool norm, const std::vector<float>& weight,
                      const Matrix& rows, float eps);

}  // namespace troupe

#endif  // TROUPE_KERNELS_OPS_TEST_WEIGHTS_H_
