#ifndef TROUPE_KERNELS_LINEAR_LINEAR_CUDA_H_
#define TROUPE_KERNELS_LINEAR_LINEAR_CUDA_H_

#include <cstdint>

#include "kernels/linear/linear.h"

namespace troupe {

struct CudaContext;

// See Ops::TakesRounded.
bool TakesRoundedCuda(const PackedMatrix& w, int64_t rows);

void LinearCuda(const LinearParams& params, const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_LINEAR_CUDA_H_
