#ifndef TROUPE_KERNELS_ROW_ADD_ROW_ADD_CPU_H_
#define TROUPE_KERNELS_ROW_ADD_ROW_ADD_CPU_H_

#include "kernels/cpu_context.h"
#include "kernels/row_add/row_add.h"

namespace troupe {

void RowAddCpu(const RowAddParams& params, const CpuContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_ROW_ADD_ROW_ADD_CPU_H_
