#include "base/check.h"
#include "kernels/cuda/context.cuh"
#include "kernels/rms_norm/rms_norm.cuh"
#include "kernels/rms_norm/rms_norm_cuda.h"

namespace troupe {

void RmsNormCuda(const RmsNormParams& params, const CudaContext& context) {
  CHECK_EQ(params.weight.cols, params.x.cols);
  CHECK_EQ(params.out.rows, params.x.rows);
  CHECK_EQ(params.out.cols, params.x.cols);
  if (params.x.rows == 0) return;
  RmsNormKernel<<<static_cast<unsigned>(params.x.rows), kRmsNormThreads, 0, context.stream>>>(
      params);
}

void SquareSumsCuda(const SquareSumsParams& params, const CudaContext& context) {
  if (params.x.rows == 0) return;
  SquareSumsKernel<<<static_cast<unsigned>(params.x.rows), kRmsNormThreads, 0, context.stream>>>(
      params);
}

}  // namespace troupe
