#include "kernels/swiglu/swiglu_kernel.h"

#include "kernels/simd/simd.h"

namespace troupe::TROUPE_ISA {

void SwigluRows(const SwigluParams& params, int64_t begin, int64_t end) {
  const int64_t count = params.out.cols;
  for (int64_t row = begin; row < end; ++row) {
    const float* gate = params.gate_up.f32(row);
    const float* up = gate + count;
    float* out = params.out.f32(row);
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      Store(out + i, Silu(Load(gate + i)) * Load(up + i));
    }
    if (i < count) {
      const int tail = static_cast<int>(count - i);
      Store(out + i, Silu(Load(gate + i, tail)) * Load(up + i, tail), tail);
    }
  }
}

}  // namespace troupe::TROUPE_ISA
