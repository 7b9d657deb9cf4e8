// SwiGLU (Shazeer, 2020): out = silu(gate) * up.
#ifndef TROUPE_KERNELS_SWIGLU_SWIGLU_H_
#define TROUPE_KERNELS_SWIGLU_SWIGLU_H_

#include "kernels/tensor.h"

namespace troupe {

struct SwigluParams {
  Tensor gate_up;  // [T, 2 * m] f32: gate, then up
  Tensor out;      // [T, m] f32
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_SWIGLU_SWIGLU_H_
