#include "kernels/swiglu/swiglu_kernel.h"

#include "kernels/simd/simd.h"

namespace troupe::TROUPE_ISA {
namespace {

struct GateAlone {
  Vec operator()(Vec gate, Vec /*up*/) const { return Silu(gate); }
};

struct SiluGate {
  Vec operator()(Vec gate, Vec up) const { return Silu(gate) * up; }
};

// gelu(g) = g (1 + tanh(z)) / 2 = g sigmoid(2 z) with z = sqrt(2 / pi) (g + 0.044715 g^3).
struct GeluGate {
  Vec operator()(Vec gate, Vec up) const {
    const Vec cubic = Fma(gate * gate * gate, Set1(0.044715f), gate);
    const Vec z2 = cubic * Set1(1.5957691216057308f);
    return gate / (Set1(1.0f) + Exp(Zero() - z2)) * up;
  }
};

struct ClampedSiluGate {
  Vec alpha;
  Vec limit;

  Vec operator()(Vec gate, Vec up) const {
    const Vec g = Min(gate, limit);
    const Vec u = Max(Min(up, limit), Zero() - limit);
    return (u + Set1(1.0f)) * (g / (Set1(1.0f) + Exp(Zero() - alpha * g)));
  }
};

template <class Combine>
void CombineRows(const SwigluParams& params, int64_t begin, int64_t end, const Combine& combine) {
  const int64_t count = params.out.cols;
  for (int64_t row = begin; row < end; ++row) {
    const float* gate = params.gate_up.f32(row);
    const float* up = params.gate_up.cols != count ? gate + count : gate;
    float* out = params.out.f32(row);
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      Store(out + i, combine(Load(gate + i), Load(up + i)));
    }
    if (i < count) {
      const int tail = static_cast<int>(count - i);
      Store(out + i, combine(Load(gate + i, tail), Load(up + i, tail)), tail);
    }
  }
}

}  // namespace

void SwigluRows(const SwigluParams& params, int64_t begin, int64_t end) {
  const Activation& activation = params.activation;
  if (params.gate_up.cols == params.out.cols) {
    CombineRows(params, begin, end, GateAlone());
  } else if (activation.kind == ActivationKind::kGeluTanh) {
    CombineRows(params, begin, end, GeluGate());
  } else if (activation.kind == ActivationKind::kClampedSilu) {
    CombineRows(params, begin, end,
                ClampedSiluGate{Set1(activation.alpha), Set1(activation.limit)});
  } else {
    CombineRows(params, begin, end, SiluGate());
  }
}

}  // namespace troupe::TROUPE_ISA
