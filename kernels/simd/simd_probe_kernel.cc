#include "kernels/simd/simd_probe_kernel.h"

#include "kernels/simd/simd.h"

namespace troupe::TROUPE_ISA {

void ProbeElementwise(const SimdProbe& probe) {
  for (int64_t i = 0; i < probe.count; i += kLanes) {
    const int n = static_cast<int>(probe.count - i < kLanes ? probe.count - i : kLanes);
    const Vec x = n == kLanes ? Load(probe.in + i) : Load(probe.in + i, n);
    Store(probe.exp + i, Exp(x), n);
    Store(probe.sigmoid + i, Sigmoid(x), n);
    Store(probe.silu + i, Silu(x), n);
    if (n == kLanes) {
      Store(probe.narrow + i, x);
      Store(probe.widened + i, Load(probe.narrow + i));
    } else {
      Store(probe.narrow + i, x, n);
      Store(probe.widened + i, Load(probe.narrow + i, n), n);
    }
  }
}

void ProbeReductions(const float* in, const Bf16* a, const Bf16* b, int64_t count,
                     float (&sum_max_dot)[3]) {
  Vec sum = Zero();
  Vec largest = Load(in);
  Vec dot = Zero();
  for (int64_t i = 0; i < count; i += kLanes) {
    sum = sum + Load(in + i);
    largest = Max(largest, Load(in + i));
  }
  for (int64_t i = 0; i < count; i += 2 * kLanes) {
    dot = DotPairs(LoadPairs(a + i), LoadPairs(b + i), dot);
  }
  sum_max_dot[0] = Sum(sum);
  sum_max_dot[1] = ReduceMax(largest);
  sum_max_dot[2] = Sum(dot);
}

}  // namespace troupe::TROUPE_ISA
