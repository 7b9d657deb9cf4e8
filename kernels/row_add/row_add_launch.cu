#include "base/check.h"
#include "kernels/cuda/context.cuh"
#include "kernels/row_add/row_add.cuh"
#include "kernels/row_add/row_add_cuda.h"

namespace troupe {

void RowAddCuda(const RowAddParams& params, const CudaContext& context) {
  CHECK_EQ(params.x.cols, params.out.cols);
  if (params.x.rows == 0) return;
  RowAddKernel<<<static_cast<unsigned>(params.x.rows), kRowAddThreads, 0, context.stream>>>(params);
}

}  // namespace troupe
