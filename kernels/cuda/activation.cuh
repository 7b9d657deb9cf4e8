// kernels/activation.h on the device.
#ifndef TROUPE_KERNELS_CUDA_ACTIVATION_CUH_
#define TROUPE_KERNELS_CUDA_ACTIVATION_CUH_

#include "kernels/activation.h"
#include "kernels/cuda/math.cuh"

namespace troupe {

__device__ __forceinline__ float Activate(const Activation& activation, float gate, float up) {
  switch (activation.kind) {
    case ActivationKind::kGeluTanh: {
      constexpr float kSqrtTwoOverPi = 0.7978845608028654F;
      const float z = kSqrtTwoOverPi * (gate + 0.044715F * gate * gate * gate);
      return 0.5F * gate * (1.0F + tanhf(z)) * up;
    }
    case ActivationKind::kClampedSilu: {
      const float g = fminf(gate, activation.limit);
      const float u = fminf(fmaxf(up, -activation.limit), activation.limit);
      return (u + 1.0F) * g * Sigmoid(activation.alpha * g);
    }
    case ActivationKind::kSilu:
      break;
  }
  return Silu(gate) * up;
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_ACTIVATION_CUH_
