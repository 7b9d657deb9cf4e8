// FP8 weights for products with FP8 activations on a GPU (Precision::kFp8Groups).
//
// Thread model: the Ops' caller. Ownership: a matrix owns its device memory.
#ifndef TROUPE_KERNELS_LINEAR_FP8_CUDA_CUH_
#define TROUPE_KERNELS_LINEAR_FP8_CUDA_CUH_

#include <cuda.h>

#include <memory>

#include "absl/types/span.h"
#include "kernels/cuda/context.cuh"
#include "kernels/cuda/memory.cuh"
#include "kernels/linear/coded_matrix.h"
#include "kernels/linear/fp8_tiles.cuh"
#include "kernels/linear/linear.h"

namespace troupe {

class CudaFp8 final : public PackedMatrix {
 public:
  // Null where matrix units do not take such parts. They lie in the caller's memory, and may go
  // away. Where device memory is short the error is noted, and the matrix is good for nothing but
  // its shape.
  static std::unique_ptr<CudaFp8> Pack(absl::Span<const CodedMatrix> parts, Precision precision,
                                       CudaArena& arena, cudaStream_t stream, CudaErrors& errors);

  int blocks() const { return static_cast<int>(Fp8Blocks(inputs())); }
  const CUtensorMap& map() const { return map_; }
  const CUtensorMap* device_map() const { return device_map_; }
  const float* scales() const { return scales_; }  // [outputs / kFp8Slab, blocks], on the device

 private:
  using PackedMatrix::PackedMatrix;

  CUtensorMap map_ = {};
  const CUtensorMap* device_map_ = nullptr;
  const float* scales_ = nullptr;
  std::shared_ptr<std::byte> memory_;
};

// Null where the matrix is none of these.
const CudaFp8* AsFp8(const PackedMatrix* matrix);

// Rows of x, ready for products, in scratch memory.
struct Fp8Rows {
  const uint8_t* codes = nullptr;  // [rows, blocks * kFp8Block]
  const float* scales = nullptr;   // [blocks, scale_stride]
  int64_t scale_stride = 0;
  int64_t rows = 0;
  int blocks = 0;
};

// Of rows of f32 or bf16, or of copies of them (kernels/linear/fp8_round.cuh). False where scratch
// memory is short.
struct Fp8Source {
  const void* x = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;
  const int32_t* place = nullptr;
  int copies = 1;
  int64_t copied_rows = 0;  // with `place`: what it leads to
};
bool RoundToFp8(const Fp8Source& source, Fp8Rows& rows, const CudaContext& context);

// The same as plain numbers, for products of other kinds: [rows, cols] f32 in scratch memory.
Tensor RoundedToFp8(const Tensor& x, const CudaContext& context);

// product.blocks and what is said of x are filled in here.
void LaunchFp8(Fp8Product product, const Fp8Rows& rows, bool gated, bool few_rows, int waves,
               const CudaContext& context);

void Fp8LinearCuda(const LinearParams& params, const CudaFp8& w, const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_FP8_CUDA_CUH_
