#ifndef TROUPE_KERNELS_ROW_ADD_ROW_ADD_CUDA_H_
#define TROUPE_KERNELS_ROW_ADD_ROW_ADD_CUDA_H_

#include "kernels/row_add/row_add.h"

namespace troupe {

struct CudaContext;

void RowAddCuda(const RowAddParams& params, const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_ROW_ADD_ROW_ADD_CUDA_H_
