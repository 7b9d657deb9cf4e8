// What every kernel bench reports: microseconds, bytes, GB/s, GFLOP/s, and their shares of what
// this machine does at best, measured in the same run.
//
// Environment: TROUPE_BENCH_THREADS (default: all cores), TROUPE_BENCH_ISA (avx2, avx512,
// avx512bf16; default: the best).
#ifndef TROUPE_KERNELS_BENCH_UTIL_H_
#define TROUPE_KERNELS_BENCH_UTIL_H_

#include <cstdint>
#include <memory>

#include "benchmark/benchmark.h"
#include "kernels/linear/linear.h"
#include "kernels/ops.h"

namespace troupe {

// The operations under test, one for the whole run.
Ops& BenchOps();

struct BenchWork {
  int64_t bytes = 0;              // read and written in one iteration
  int64_t working_set_bytes = 0;  // that iterations walk through before they come back
  int64_t flops = 0;              // 0: GFLOP/s is not reported
  Precision precision = Precision::kF32;
};

// Sets the counters of a bench whose loop has ended, UseRealTime.
void Report(benchmark::State& state, const BenchWork& work);

}  // namespace troupe

#endif  // TROUPE_KERNELS_BENCH_UTIL_H_
