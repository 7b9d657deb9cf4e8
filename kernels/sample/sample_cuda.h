#ifndef TROUPE_KERNELS_SAMPLE_SAMPLE_CUDA_H_
#define TROUPE_KERNELS_SAMPLE_SAMPLE_CUDA_H_

#include "kernels/sample/sample.h"

namespace troupe {

struct CudaContext;

void SampleCuda(const SampleParams& params, const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_SAMPLE_SAMPLE_CUDA_H_
