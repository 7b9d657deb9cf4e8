// Weights that stay codes on a GPU, and their products.
//
// Thread model: the Ops' caller. Ownership: a matrix owns its device memory; views borrow it.
#ifndef TROUPE_KERNELS_LINEAR_CODED_CUDA_CUH_
#define TROUPE_KERNELS_LINEAR_CODED_CUDA_CUH_

#include <memory>

#include "absl/types/span.h"
#include "kernels/cuda/context.cuh"
#include "kernels/cuda/memory.cuh"
#include "kernels/linear/coded_layout.h"
#include "kernels/linear/coded_matrix.h"
#include "kernels/linear/coded_product.cuh"
#include "kernels/linear/linear.h"

namespace troupe {

class CudaCodes final : public PackedMatrix {
 public:
  // Null where kernels do not take such codes as they are. `parts` lie in the caller's memory, and
  // may go away. Where device memory is short the error is noted, and the matrix is good for
  // nothing but its shape.
  static std::unique_ptr<CudaCodes> Pack(absl::Span<const CodedMatrix> parts, Precision precision,
                                         CudaArena& arena, cudaStream_t stream, CudaErrors& errors);

  CodedKind kind() const { return kind_; }
  const CodedShape& shape() const { return shape_; }
  const CodedView& view() const { return view_; }

 private:
  CudaCodes(const CodedShape& shape, CodedKind kind, int64_t bytes);

  CodedShape shape_;
  CodedKind kind_;
  CodedView view_;
  std::shared_ptr<std::byte> memory_;
};

// Null where the matrix is none of these.
const CudaCodes* AsCodes(const PackedMatrix* matrix);

void CodedLinearCuda(const LinearParams& params, const CudaCodes& w, const CudaContext& context);

// At most `tiles` tiles of `rows_a_tile` rows: 8, 16 or 64. kernels/linear/coded_tiles.cuh.
void LaunchCodedTiles(const CodedTileProduct& product, CodedKind kind, bool gated, int rows_a_tile,
                      int64_t tiles, const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_CODED_CUDA_CUH_
