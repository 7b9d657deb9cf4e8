// Launches of the products that dense layers and experts share.
#ifndef TROUPE_KERNELS_LINEAR_LINEAR_PRODUCTS_CUH_
#define TROUPE_KERNELS_LINEAR_LINEAR_PRODUCTS_CUH_

#include "kernels/cuda/context.cuh"
#include "kernels/cuda/grouped.cuh"
#include "kernels/linear/linear_choice.h"
#include "kernels/linear/linear_exact.cuh"
#include "kernels/linear/linear_matrix_units.cuh"

namespace troupe {

// At most `tiles` tiles of choice.rows_a_tile rows.
void LaunchExact(const ExactProduct& product, DType weights, bool round_x,
                 const ProductChoice& choice, int64_t tiles, const CudaContext& context,
                 int batch = 1);
void LaunchUnits(const UnitProduct& product, bool gated, const ProductChoice& choice, int64_t tiles,
                 const CudaContext& context);

// x rounded to bf16, packed: [rows, x.cols].
void LaunchRound(const Tensor& x, CudaBf16* to, const CudaContext& context);

// x normed, in scratch memory.
Tensor NormedRows(const Tensor& x, const InputNorm& norm, const CudaContext& context);

bool RowsAligned(const Tensor& x);

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_LINEAR_PRODUCTS_CUH_
