// What this machine can do at best, measured: the yardstick of the benches.
//
// Thread model: one caller at a time, on the threads of the pool it gives.
#ifndef TROUPE_KERNELS_CEILING_CEILING_H_
#define TROUPE_KERNELS_CEILING_CEILING_H_

#include <cstdint>

#include "kernels/cpu_isa.h"
#include "kernels/linear/linear.h"
#include "kernels/thread_pool/thread_pool.h"

namespace troupe {

// Bytes read plus bytes written a nanosecond (GB/s) by a plain copy whose source and destination
// take `working_set_bytes` together, split over the pool's threads. The best of many runs.
double MeasureCopyGbps(int64_t working_set_bytes, ThreadPool& pool);

// The same for reading alone.
double MeasureReadGbps(int64_t working_set_bytes, CpuIsa isa, ThreadPool& pool);

// Operations a nanosecond (GFLOP/s), two for each multiply-add, from registers, with the
// instructions that products of bf16 weights, or of integer codes, use at this precision.
double MeasurePeakGflops(Precision precision, CpuIsa isa, ThreadPool& pool);

}  // namespace troupe

#endif  // TROUPE_KERNELS_CEILING_CEILING_H_
