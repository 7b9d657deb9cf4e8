#ifndef TROUPE_KERNELS_RMS_NORM_RMS_NORM_CUDA_H_
#define TROUPE_KERNELS_RMS_NORM_RMS_NORM_CUDA_H_

#include "kernels/rms_norm/rms_norm.h"

namespace troupe {

struct CudaContext;

void RmsNormCuda(const RmsNormParams& params, const CudaContext& context);
void SquareSumsCuda(const SquareSumsParams& params, const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_RMS_NORM_RMS_NORM_CUDA_H_
