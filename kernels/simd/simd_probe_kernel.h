// The functions of kernels/simd over arrays, for its test.
#ifndef TROUPE_KERNELS_SIMD_SIMD_PROBE_KERNEL_H_
#define TROUPE_KERNELS_SIMD_SIMD_PROBE_KERNEL_H_

#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/simd/dispatch.h"

namespace troupe {

struct SimdProbe {
  int64_t count = 0;
  const float* in = nullptr;
  float* exp = nullptr;
  float* sigmoid = nullptr;
  float* silu = nullptr;
  Bf16* narrow = nullptr;
  float* widened = nullptr;  // of `narrow`
};

// Any count: ends with partial loads and stores.
TROUPE_DECLARE_KERNEL(ProbeElementwise, const SimdProbe& probe);

// sum and maximum of all; sum over all pairs of a.low * b.low + a.high * b.high. `count` is a
// multiple of 32.
TROUPE_DECLARE_KERNEL(ProbeReductions, const float* in, const Bf16* a, const Bf16* b, int64_t count,
                      float (&sum_max_dot)[3]);

}  // namespace troupe

#endif  // TROUPE_KERNELS_SIMD_SIMD_PROBE_KERNEL_H_
