// How a gated feed-forward network combines its two halves, gate g and up u.
//
// Plain values, which a model's description uses as they are.
#ifndef TROUPE_KERNELS_ACTIVATION_H_
#define TROUPE_KERNELS_ACTIVATION_H_

#include <cstdint>

namespace troupe {

enum class ActivationKind : uint8_t {
  kSilu,         // silu(g) * u (SwiGLU; Shazeer, 2020)
  kGeluTanh,     // gelu(g) * u, gelu by the tanh formula (Hendrycks and Gimpel, 2016)
  kClampedSilu,  // gpt-oss: g = min(g, limit), u = clamp(u, -limit, limit);
                 // (u + 1) * g * sigmoid(alpha g)
};

struct Activation {
  ActivationKind kind = ActivationKind::kSilu;
  float alpha = 0.0f;  // kClampedSilu
  float limit = 0.0f;  // kClampedSilu

  bool operator==(const Activation&) const = default;
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_ACTIVATION_H_
