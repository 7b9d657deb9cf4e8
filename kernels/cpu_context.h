// What a fast CPU operation runs with: `void FooCpu(const FooParams&, const CpuContext&)` in
// kernels/foo/foo_cpu.h.
//
// Thread model: one operation at a time uses a context; inside it, the pool's threads do.
// Ownership: the CpuOps owns everything that is referred to here.
#ifndef TROUPE_KERNELS_CPU_CONTEXT_H_
#define TROUPE_KERNELS_CPU_CONTEXT_H_

#include <algorithm>
#include <cstdint>

#include "kernels/cpu_isa.h"
#include "kernels/scratch.h"
#include "kernels/thread_pool/thread_pool.h"

namespace troupe {

struct CpuContext {
  CpuIsa isa;
  ThreadPool& pool;
  Scratch& scratch;  // empty when an operation begins
};

// The grain of loops over rows that are merely read and written: as many rows as are worth handing
// to another thread.
inline int64_t RowsPerTask(int64_t columns) {
  constexpr int64_t kColumnsWorthATask = 16384;
  return std::max<int64_t>(kColumnsWorthATask / std::max<int64_t>(columns, 1), 1);
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_CPU_CONTEXT_H_
