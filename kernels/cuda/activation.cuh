// kernels/activation.h on the device.
#ifndef TROUPE_KERNELS_CUDA_ACTIVATION_CUH_
#define TROUPE_KERNELS_CUDA_ACTIVATION_CUH_

#include "kernels/activation.h"
#include "kernels/cuda/math.cuh"

namespace troupe {

// Without the branches of an exact division, so that many of them run at once; within 3 units of
// the last place.
__device__ __forceinline__ float FastSigmoidTimes(float x, float factor) {
  return __fdividef(factor, 1.0F + expf(-x));
}

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
      return FastSigmoidTimes(activation.alpha * g, (u + 1.0F) * g);
    }
    case ActivationKind::kSilu:
      break;
  }
  return FastSigmoidTimes(gate, gate) * up;
}

// Calls use(activate), activate(gate, up) as above, with the kind decided before: so that it costs
// many values one branch.
template <class Use>
__device__ __forceinline__ void WithActivation(const Activation& activation, const Use& use) {
  if (activation.kind == ActivationKind::kSilu) {
    use([](float gate, float up) { return FastSigmoidTimes(gate, gate) * up; });
  } else {
    use([&](float gate, float up) { return Activate(activation, gate, up); });
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_ACTIVATION_CUH_
