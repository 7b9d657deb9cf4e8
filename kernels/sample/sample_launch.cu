#include "base/check.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/sample/sample.cuh"
#include "kernels/sample/sample_cuda.h"

namespace troupe {

void SampleCuda(const SampleParams& params, const CudaContext& context) {
  CHECK_GE(params.logits.cols, 1);
  CHECK_LT(params.logits.cols, int64_t{1} << 22) << "sums of weights would overflow";
  if (params.logits.rows == 0) return;
  Launch(SampleKernel,
         {.grid = static_cast<unsigned>(params.logits.rows), .threads = kSampleThreads}, context,
         params);
}

}  // namespace troupe
