#include "base/check.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/swiglu/swiglu.cuh"
#include "kernels/swiglu/swiglu_cuda.h"

namespace troupe {

void SwigluCuda(const SwigluParams& params, const CudaContext& context) {
  CHECK_EQ(params.gate_up.rows, params.out.rows);
  if (params.gate_up.cols != params.out.cols) {
    CHECK_EQ(params.gate_up.cols, 2 * params.out.cols);
  }
  if (params.out.rows == 0) return;
  const dim3 grid(static_cast<unsigned>(params.out.rows),
                  static_cast<unsigned>(CeilDiv(params.out.cols, kSwigluThreads)));
  Launch(SwigluKernel, {.grid = grid, .threads = kSwigluThreads}, context, params);
}

}  // namespace troupe
