// The gated activations of feed-forward networks: out = activation(gate, up), or without `up` plain
// SiLU.
#ifndef TROUPE_KERNELS_SWIGLU_SWIGLU_H_
#define TROUPE_KERNELS_SWIGLU_SWIGLU_H_

#include "kernels/activation.h"
#include "kernels/tensor.h"

namespace troupe {

struct SwigluParams {
  Tensor gate_up;         // [T, 2 * m] f32: gate, then up; or [T, m]: gate alone, out = silu(gate)
  Tensor out;             // [T, m] f32, or bf16 for what Ops::TakesRounded
  Activation activation;  // kSilu where the gate is alone
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_SWIGLU_SWIGLU_H_
