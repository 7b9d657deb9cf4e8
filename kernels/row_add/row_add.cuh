// Device code of kernels/row_add/row_add.h: one block a row.
#ifndef TROUPE_KERNELS_ROW_ADD_ROW_ADD_CUH_
#define TROUPE_KERNELS_ROW_ADD_ROW_ADD_CUH_

#include "kernels/cuda/math.cuh"
#include "kernels/row_add/row_add.h"

namespace troupe {

inline constexpr int kRowAddThreads = 256;

__global__ void __launch_bounds__(kRowAddThreads) RowAddKernel(RowAddParams params) {
  const int64_t i = blockIdx.x;
  const auto* from = static_cast<const float*>(params.x.data) + i * params.x.stride;
  auto* to = static_cast<float*>(params.out.data) + params.row[i] * params.out.stride;
  for (int64_t c = threadIdx.x; c < params.x.cols; c += kRowAddThreads) to[c] += from[c];
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_ROW_ADD_ROW_ADD_CUH_
