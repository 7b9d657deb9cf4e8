// SwiGLU (Shazeer, 2020): out = silu(gate) * up, or without `up` plain SiLU.
#ifndef TROUPE_KERNELS_SWIGLU_SWIGLU_H_
#define TROUPE_KERNELS_SWIGLU_SWIGLU_H_

#include "kernels/tensor.h"

namespace troupe {

struct SwigluParams {
  Tensor gate_up;  // [T, 2 * m] f32: gate, then up; or [T, m]: gate alone, out = silu(gate)
  Tensor out;      // [T, m] f32
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_SWIGLU_SWIGLU_H_
