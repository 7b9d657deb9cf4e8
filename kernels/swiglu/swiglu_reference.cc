#include "kernels/swiglu/swiglu_reference.h"

#include "base/check.h"
#include "kernels/activation_reference.h"

namespace troupe {

void SwigluReference(const SwigluParams& params) {
  const int64_t size = params.out.cols;
  const bool gated = params.gate_up.cols != size;
  if (gated) CHECK_EQ(params.gate_up.cols, 2 * size);
  for (int64_t token = 0; token < params.out.rows; ++token) {
    const float* gate = params.gate_up.f32(token);
    const float* up = gate + size;
    for (int64_t c = 0; c < size; ++c) {
      params.out.f32(token)[c] = static_cast<float>(
          gated ? ActivateReference(params.activation, gate[c], up[c]) : SiluReference(gate[c]));
    }
  }
}

}  // namespace troupe
