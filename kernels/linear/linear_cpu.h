#ifndef TROUPE_KERNELS_LINEAR_LINEAR_CPU_H_
#define TROUPE_KERNELS_LINEAR_LINEAR_CPU_H_

#include <cstdint>

#include "kernels/cpu_context.h"
#include "kernels/linear/linear.h"
#include "kernels/linear/linear_kernel.h"

namespace troupe {

// How a product is cut into tasks for the pool. Never changes a result.
struct LinearConfig {
  int64_t tiles = 0;  // of the rows of x
  int64_t tiles_per_task = 0;
  int64_t panels_per_task = 0;
};

// How many tasks to make of products that read `weight_bytes` and do `multiply_adds` in all: each
// worth a fork, and enough of them to keep every thread busy to the end.
int64_t ChooseTaskCount(int64_t weight_bytes, int64_t multiply_adds, int threads);

// What packs rows for products with `w`, and forms the products.
struct PanelKernels {
  decltype(&avx2::PackRows) pack;
  decltype(&avx2::MultiplyPanels) multiply;
};
PanelKernels PanelKernelsOf(const PanelView& w, CpuIsa isa);

// Bytes of all panels that products read.
int64_t WeightBytes(const PanelView& w, CpuIsa isa);

LinearConfig ChooseLinearConfig(int64_t rows, const PanelView& w, CpuIsa isa, int threads);

void LinearCpu(const LinearParams& params, const CpuContext& context);

// Packs `rows`, whose `packed` is set here, for products with `w`.
void PackRowsCpu(const PanelView& w, RowsView& rows, const CpuContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_LINEAR_CPU_H_
