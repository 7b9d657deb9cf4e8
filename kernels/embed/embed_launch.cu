#include "base/check.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/embed/embed.cuh"
#include "kernels/embed/embed_cuda.h"

namespace troupe {

void EmbedCuda(const EmbedParams& params, const CudaContext& context) {
  CHECK_EQ(params.table.cols, params.out.cols);
  if (params.out.rows == 0) return;
  constexpr int kThreads = 256;
  WithElement(params.table.dtype, [&](auto element) {
    Launch(EmbedKernel<decltype(element)>,
           {.grid = static_cast<unsigned>(params.out.rows), .threads = kThreads}, context, params);
  });
}

}  // namespace troupe
