#include <utility>

#include "base/check.h"
#include "kernels/cuda/context.cuh"
#include "kernels/cuda/matrix.cuh"

namespace troupe {

std::unique_ptr<CudaMatrix> CudaMatrix::Pack(absl::Span<const Tensor> parts, Precision precision,
                                             CudaArena& arena, cudaStream_t stream,
                                             CudaErrors& errors) {
  CHECK(!parts.empty());
  const int64_t inputs = parts.front().cols;
  const DType dtype = parts.front().dtype;
  int64_t outputs = 0;
  for (const Tensor& part : parts) {
    CHECK_EQ(part.cols, inputs);
    CHECK(part.dtype == dtype) << "parts of different dtypes";
    outputs += part.rows;
  }
  const int64_t row_bytes = inputs * BytesOf(dtype);
  auto memory = arena.Allocate(outputs * row_bytes);
  if (!memory.ok()) {
    errors.Note(memory.status());
    memory = nullptr;
  }
  std::byte* to = memory->get();
  for (const Tensor& part : parts) {
    if (!errors.ok()) break;
    CudaOk(cudaMemcpy2DAsync(to, static_cast<size_t>(row_bytes), part.data,
                             static_cast<size_t>(part.stride * BytesOf(dtype)),
                             static_cast<size_t>(row_bytes), static_cast<size_t>(part.rows),
                             cudaMemcpyDefault, stream),
           "copy of weights to the device", errors);
    to += part.rows * row_bytes;
  }
  return std::unique_ptr<CudaMatrix>(
      new CudaMatrix(outputs, inputs, precision, dtype, *std::move(memory)));
}

const CudaMatrix& AsCuda(const PackedMatrix* matrix) {
  const auto* cuda = dynamic_cast<const CudaMatrix*>(matrix);
  CHECK(cuda != nullptr) << "the matrix was packed by another Ops";
  return *cuda;
}

}  // namespace troupe
