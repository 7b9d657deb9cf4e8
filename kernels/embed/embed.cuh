// Device code of kernels/embed/embed.h: one block a token.
#ifndef TROUPE_KERNELS_EMBED_EMBED_CUH_
#define TROUPE_KERNELS_EMBED_EMBED_CUH_

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/math.cuh"
#include "kernels/embed/embed.h"

namespace troupe {

template <class Element>
__global__ void EmbedKernel(EmbedParams params) {
  LetNextKernelBegin();
  WaitForEarlierKernels();
  const int64_t row = blockIdx.x;
  const auto* from = static_cast<const Element*>(params.table.data) +
                     static_cast<int64_t>(TokenOf(params, row)) * params.table.stride;
  auto* to = static_cast<float*>(params.out.data) + row * params.out.stride;
  for (int64_t c = threadIdx.x; c < params.out.cols; c += blockDim.x) {
    to[c] = __fmul_rn(params.scale, Widen(from[c]));
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_EMBED_EMBED_CUH_
