#ifndef TROUPE_KERNELS_NSA_SELECT_NSA_SELECT_CUDA_H_
#define TROUPE_KERNELS_NSA_SELECT_NSA_SELECT_CUDA_H_

#include "kernels/nsa_select/nsa_select.h"

namespace troupe {

struct CudaContext;

void NsaSelectCuda(const NsaSelectParams& params, const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_NSA_SELECT_NSA_SELECT_CUDA_H_
