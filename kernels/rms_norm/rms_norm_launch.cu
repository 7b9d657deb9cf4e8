#include "base/check.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/rms_norm/rms_norm.cuh"
#include "kernels/rms_norm/rms_norm_cuda.h"

namespace troupe {
namespace {

bool InFours(const Tensor& tensor) {
  return tensor.cols % 4 == 0 && tensor.stride % 4 == 0 &&
         reinterpret_cast<uintptr_t>(tensor.data) % sizeof(float4) == 0;
}

// By a kernel that keeps rows in registers, where they are short enough and whole.
bool RunShort(const RmsNormParams& params, const CudaContext& context) {
  if (params.accumulate || params.square_sums != nullptr) return false;
  if (!InFours(params.x) || !InFours(params.weight) || !InFours(params.out)) return false;
  const auto launch = [&](auto* kernel) {
    Launch(kernel, {.grid = static_cast<unsigned>(params.x.rows), .threads = kRmsNormThreads},
           context, params);
  };
  const int64_t fours = CeilDiv(params.x.cols, int64_t{4} * kRmsNormThreads);
  if (fours > 8) return false;
  if (fours <= 2) {
    launch(RmsNormShortKernel<2>);
  } else if (fours <= 4) {
    launch(RmsNormShortKernel<4>);
  } else {
    launch(RmsNormShortKernel<8>);
  }
  return true;
}

}  // namespace

void RmsNormCuda(const RmsNormParams& params, const CudaContext& context) {
  CHECK_EQ(params.weight.cols, params.x.cols);
  CHECK_EQ(params.out.rows, params.x.rows);
  CHECK_EQ(params.out.cols, params.x.cols);
  if (params.x.rows == 0 || RunShort(params, context)) return;
  RmsNormKernel<<<static_cast<unsigned>(params.x.rows), kRmsNormThreads, 0, context.stream>>>(
      params);
}

void SquareSumsCuda(const SquareSumsParams& params, const CudaContext& context) {
  if (params.x.rows == 0) return;
  SquareSumsKernel<<<static_cast<unsigned>(params.x.rows), kRmsNormThreads, 0, context.stream>>>(
      params);
}

}  // namespace troupe
