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
  const int64_t out_bytes = 4 * BytesOf(params.out.dtype);
  const bool in_fours = params.out.cols % 4 == 0 && params.out.stride % 4 == 0 &&
                        reinterpret_cast<uintptr_t>(params.out.data) % out_bytes == 0 &&
                        params.gate_up.stride % 4 == 0 &&
                        reinterpret_cast<uintptr_t>(params.gate_up.data) % sizeof(float4) == 0;
  const int unit = in_fours ? 4 : 1;
  const dim3 grid(static_cast<unsigned>(params.out.rows),
                  static_cast<unsigned>(CeilDiv(params.out.cols, unit * kSwigluThreads)));
  WithElement(params.out.dtype, [&](auto element) {
    using Out = decltype(element);
    Launch(unit == 4 ? SwigluKernel<4, Out> : SwigluKernel<1, Out>,
           {.grid = grid, .threads = kSwigluThreads}, context, params);
  });
}

}  // namespace troupe
