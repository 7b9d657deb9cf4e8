// cuBLASLt, found when the program starts: a build needs its header, a machine without the library
// runs our own kernels.
//
// Thread model: the Ops' caller. Ownership: owns the library's handle and the algorithms chosen.
// Invariant: only algorithms that sum a row's products in one go, without splitting the inputs, so
// that a row's bits do not depend on how many rows there are.
#ifndef TROUPE_KERNELS_CUDA_CUBLAS_LT_CUH_
#define TROUPE_KERNELS_CUDA_CUBLAS_LT_CUH_

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/cuda/errors.h"

namespace troupe {

// out[rows, outputs] f32 = x[rows, inputs] bf16 times the transpose of w[outputs, inputs] bf16.
struct DenseProduct {
  const void* x = nullptr;
  const void* w = nullptr;
  float* out = nullptr;
  int64_t rows = 0;
  int64_t inputs = 0;
  int64_t outputs = 0;
  int64_t x_stride = 0;
  int64_t out_stride = 0;
  bool accumulate = false;
};

class CublasLt {
 public:
  virtual ~CublasLt() = default;

  // NotFound when the library is not on this machine.
  static absl::StatusOr<std::unique_ptr<CublasLt>> Load();

  // False, with nothing computed, where the library has no algorithm for the shape.
  virtual bool Run(const DenseProduct& product, cudaStream_t stream, CudaErrors& errors) = 0;
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_CUBLAS_LT_CUH_
