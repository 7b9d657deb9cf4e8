// Weights as CUDA kernels take them: row-major [outputs, inputs], in the dtype they came in.
#ifndef TROUPE_KERNELS_CUDA_MATRIX_CUH_
#define TROUPE_KERNELS_CUDA_MATRIX_CUH_

#include <cuda_runtime.h>

#include <memory>

#include "absl/types/span.h"
#include "kernels/cuda/memory.cuh"
#include "kernels/linear/linear.h"

namespace troupe {

class CudaMatrix final : public PackedMatrix {
 public:
  // `parts` lie in the caller's memory. Where device memory is short the error is noted, and the
  // matrix is good for nothing but its shape.
  static std::unique_ptr<CudaMatrix> Pack(absl::Span<const Tensor> parts, Precision precision,
                                          CudaArena& arena, cudaStream_t stream,
                                          CudaErrors& errors);

  const void* data() const { return memory_.get(); }
  DType dtype() const { return dtype_; }

 private:
  CudaMatrix(int64_t outputs, int64_t inputs, Precision precision, DType dtype,
             std::shared_ptr<std::byte> memory)
      : PackedMatrix(outputs, inputs, precision, outputs * inputs * BytesOf(dtype)),
        dtype_(dtype),
        memory_(std::move(memory)) {}

  DType dtype_;
  std::shared_ptr<std::byte> memory_;
};

// CHECK-fails for a matrix of another device.
const CudaMatrix& AsCuda(const PackedMatrix* matrix);

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_MATRIX_CUH_
