// Parts of f32 tensors, as views of the same memory.
#ifndef TROUPE_WORKER_TENSOR_PARTS_H_
#define TROUPE_WORKER_TENSOR_PARTS_H_

#include <cstdint>

#include "kernels/tensor.h"

namespace troupe {

// Columns [first, first + count) of a tensor.
inline Tensor Columns(const Tensor& tensor, int64_t first, int64_t count) {
  Tensor part = tensor;
  part.data = tensor.f32() + first;
  part.cols = count;
  return part;
}

// The first `rows` rows.
inline Tensor FirstRows(const Tensor& tensor, int64_t rows) {
  Tensor part = tensor;
  part.rows = rows;
  return part;
}

// Rows [first, first + count).
inline Tensor Rows(const Tensor& tensor, int64_t first, int64_t count) {
  Tensor part = tensor;
  part.data = tensor.f32(first);
  part.rows = count;
  return part;
}

}  // namespace troupe

#endif  // TROUPE_WORKER_TENSOR_PARTS_H_
