#include "kernels/ops.h"

#include <vector>

#include "base/check.h"

namespace troupe {

std::unique_ptr<PackedMatrix> Ops::PackCoded(absl::Span<const CodedMatrix> parts,
                                             Precision precision) {
  CHECK(!parts.empty());
  CHECK(!RoundsToIntegers(precision)) << "not without HasIntegerProducts()";
  std::vector<float> values;
  Tensor tensor;
  tensor.cols = tensor.stride = parts[0].cols;
  for (const CodedMatrix& part : parts) {
    for (int64_t row = 0; row < part.rows; ++row) {
      for (int64_t col = 0; col < part.cols; ++col) {
        values.push_back(DecodeElement(part, row, col));
      }
    }
    tensor.rows += part.rows;
  }
  tensor.data = values.data();
  return Pack({tensor}, precision);
}

bool Ops::WhenDone(absl::AnyInvocable<void()> /*done*/) { return false; }

std::unique_ptr<Replays> Ops::MakeReplays() { return std::make_unique<Replays>(); }
std::unique_ptr<SideCopies> Ops::MakeSideCopies() { return std::make_unique<SideCopies>(); }
std::unique_ptr<ExpertList> Ops::ListExperts(absl::Span<const ExpertWeights> experts) {
  return std::make_unique<ExpertList>(experts);
}

}  // namespace troupe
