#include "kernels/swiglu/swiglu_kernel.h"

#include "kernels/simd/simd.h"

namespace troupe::TROUPE_ISA {

void SwigluRows(const SwigluParams& params, int64_t begin, int64_t end) {
  const int64_t count = params.out.cols;
  const bool gated = params.gate_up.cols != count;
  for (int64_t row = begin; row < end; ++row) {
    const float* gate = params.gate_up.f32(row);
    const float* up = gate + count;
    float* out = params.out.f32(row);
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      const Vec silu = Silu(Load(gate + i));
      Store(out + i, gated ? silu * Load(up + i) : silu);
    }
    if (i < count) {
      const int tail = static_cast<int>(count - i);
      const Vec silu = Silu(Load(gate + i, tail));
      Store(out + i, gated ? silu * Load(up + i, tail) : silu, tail);
    }
  }
}

}  // namespace troupe::TROUPE_ISA
