// A weight matrix as a checkpoint stores it: where its values lie and how to read them.
//
// Thread model: immutable plain values; any thread may read.
// Ownership: borrows the bytes of the checkpoint's tensors.
#ifndef TROUPE_MODEL_MATRIX_VIEW_H_
#define TROUPE_MODEL_MATRIX_VIEW_H_

#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/linear/linear.h"
#include "model/quantized_storage.h"
#include "model/safetensors.h"

namespace troupe {

// Values that stand for themselves: BF16, F16 or F32. Element (r, c) is the tensor's element
// offset + r * row_stride + c * col_stride, so that a slice of a fused tensor, or a transposed one,
// is a matrix too.
struct PlainStorage {
  TensorView tensor;
  int64_t offset = 0;
  int64_t row_stride = 0;
  int64_t col_stride = 1;
};

struct MatrixView {
  int64_t rows = 0;
  int64_t cols = 0;
  std::variant<PlainStorage, GroupedStorage, Fp8Storage, Mxfp4Storage> storage;
  // Where this matrix begins in one that is stored as codes; plain storage has an offset of its
  // own.
  int64_t first_row = 0;
  int64_t first_col = 0;
  // How the checkpoint wants products to be formed, where it does not leave that to us.
  std::optional<Precision> products = std::nullopt;

  // The whole of a 2-dimensional tensor.
  static MatrixView Of(const TensorView& tensor);

  // A part of the matrix, of the same bytes.
  MatrixView RowsFrom(int64_t first, int64_t count) const;
  MatrixView ColumnsFrom(int64_t first, int64_t count) const;

  bool empty() const { return rows == 0; }
  int64_t elements() const { return rows * cols; }
  int64_t stored_bytes() const;  // of this matrix alone, its share of scales included
  absl::string_view name() const;

  // Where rows of `cols` neighbouring elements begin, when the values lie in this way; else null.
  const std::byte* Contiguous() const;
  // The type of plain values; F32 for what has to be decoded.
  StoredDType value_dtype() const;

  // Decodes rows [first, first + count) to out [count, cols].
  void ReadRows(int64_t first, int64_t count, absl::Span<float> out) const;
};

// A BF16, F16 or F32 tensor as f32, for the small ones that kernels take so.
std::vector<float> ReadAsF32(const TensorView& view);
std::vector<float> ReadAsF32(const MatrixView& view);  // row by row

}  // namespace troupe

#endif  // TROUPE_MODEL_MATRIX_VIEW_H_
