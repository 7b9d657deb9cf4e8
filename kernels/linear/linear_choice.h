// Which CUDA kernel forms a product: a pure function of the shape, tested without a GPU.
//
// Invariant: nothing but `rows_a_tile` depends on the number of rows. Kernels sum in different
// orders, and a row's bits must not depend on the rows beside it.
#ifndef TROUPE_KERNELS_LINEAR_LINEAR_CHOICE_H_
#define TROUPE_KERNELS_LINEAR_LINEAR_CHOICE_H_

#include <cstdint>

#include "kernels/linear/linear.h"

namespace troupe {

enum class ProductKernel : uint8_t {
  kExact,        // kernels/linear/linear_exact.cuh
  kMatrixUnits,  // kernels/linear/linear_matrix_units.cuh
};

struct ProductShape {
  int64_t rows = 0;
  int64_t inputs = 0;
  int64_t outputs = 0;
  DType weights = DType::kF32;
  Precision precision = Precision::kF32;
  // Whether rows of x begin where 4 floats may be loaded at once.
  bool x_aligned = true;
};

struct ProductChoice {
  ProductKernel kernel = ProductKernel::kExact;
  int unit = 1;         // kExact: inputs that a lane takes at a time, 1 or 4
  int rows_a_tile = 1;  // kExact: 1 or 8; kMatrixUnits: 16, 64 or 128
};

inline ProductChoice ChooseProduct(const ProductShape& shape) {
  ProductChoice choice;
  if (shape.precision == Precision::kBf16 && shape.weights == DType::kBf16 &&
      shape.inputs % 8 == 0) {
    choice.kernel = ProductKernel::kMatrixUnits;
    choice.rows_a_tile = shape.rows <= 16 ? 16 : shape.rows <= 64 ? 64 : 128;
    return choice;
  }
  choice.unit = shape.inputs % 4 == 0 && shape.x_aligned ? 4 : 1;
  // A row a block while that leaves multiprocessors idle; then weights are read once for 8.
  constexpr int64_t kOutputsABlock = 16;
  constexpr int64_t kFewBlocks = 512;
  const int64_t blocks = (shape.outputs + kOutputsABlock - 1) / kOutputsABlock * shape.rows;
  choice.rows_a_tile = blocks <= kFewBlocks ? 1 : 8;
  return choice;
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_LINEAR_CHOICE_H_
