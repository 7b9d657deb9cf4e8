#ifndef TROUPE_KERNELS_SWIGLU_SWIGLU_CUDA_H_
#define TROUPE_KERNELS_SWIGLU_SWIGLU_CUDA_H_

#include "kernels/swiglu/swiglu.h"

namespace troupe {

struct CudaContext;

void SwigluCuda(const SwigluParams& params, const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_SWIGLU_SWIGLU_CUDA_H_
