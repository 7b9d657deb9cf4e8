// The oracle of kernels/activation.h: the formulas as they are written there, in double.
#ifndef TROUPE_KERNELS_ACTIVATION_REFERENCE_H_
#define TROUPE_KERNELS_ACTIVATION_REFERENCE_H_

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/activation.h"

namespace troupe {

inline double SiluReference(double x) { return x / (1 + std::exp(-x)); }

inline double ActivateReference(const Activation& activation, double gate, double up) {
  switch (activation.kind) {
    case ActivationKind::kSilu:
      return SiluReference(gate) * up;
    case ActivationKind::kGeluTanh: {
      const double z = std::sqrt(2 / std::numbers::pi) * (gate + 0.044715 * gate * gate * gate);
      return gate / 2 * (1 + std::tanh(z)) * up;
    }
    case ActivationKind::kClampedSilu: {
      const double limit = activation.limit;
      const double g = std::min(gate, limit);
      const double u = std::clamp(up, -limit, limit);
      return (u + 1) * g / (1 + std::exp(-activation.alpha * g));
    }
  }
  return 0;
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_ACTIVATION_REFERENCE_H_
