// The oracle of kernels/linear/linear.h: a plain matrix in f32 and sums in double.
#ifndef TROUPE_KERNELS_LINEAR_LINEAR_REFERENCE_H_
#define TROUPE_KERNELS_LINEAR_LINEAR_REFERENCE_H_

#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "kernels/linear/coded_matrix.h"
#include "kernels/linear/linear.h"

namespace troupe {

class ReferenceMatrix : public PackedMatrix {
 public:
  ReferenceMatrix(absl::Span<const Tensor> parts, Precision precision);

  ReferenceMatrix(absl::Span<const CodedMatrix> parts, Precision precision);

  // W x, each product formed as precision() says.
  std::vector<double> Times(const float* x) const;

 private:
  // What products see of x.
  std::vector<double> Rounded(const float* x) const;

  int64_t group_ = 0;          // inputs that are rounded to integers together
  std::vector<float> values_;  // [outputs, inputs]
};

// `matrix` must be a ReferenceMatrix.
const ReferenceMatrix& AsReference(const PackedMatrix* matrix);

void LinearReference(const LinearParams& params);

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_LINEAR_REFERENCE_H_
