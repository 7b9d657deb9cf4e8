#include "kernels/head_norm_rope/head_norm_rope_kernel.h"

#include "kernels/simd/simd.h"
#include "kernels/simd/sincos.h"

namespace troupe::TROUPE_ISA {
namespace {

// Calls each(i, n) for vectors of n = kLanes elements from i on, the last perhaps shorter.
template <class Function>
inline void ForVectors(int count, const Function& each) {
  for (int i = 0; i < count; i += kLanes) each(i, count - i < kLanes ? count - i : kLanes);
}

void Normalise(float* x, const float* weight, int size, float eps) {
  Vec squares = Zero();
  ForVectors(size, [&](int i, int n) {
    const Vec a = Load(x + i, n);
    squares = Fma(a, a, squares);
  });
  const float mean = Sum(squares) / static_cast<float>(size);
  const Vec scale = Set1(1.0F) / Sqrt(Set1(mean + eps));
  ForVectors(size,
             [&](int i, int n) { Store(x + i, Load(x + i, n) * scale * Load(weight + i, n), n); });
}

// cosines [half], then sines.
void Angles(const float* inverse_frequency, int32_t position, int half, float* out) {
  const Vec at = Set1(static_cast<float>(position));
  ForVectors(half, [&](int i, int n) {
    const SinCosVec value = SinCos(at * Load(inverse_frequency + i, n));
    Store(out + i, value.cos, n);
    Store(out + half + i, value.sin, n);
  });
}

void Rotate(float* x, const float* angles, int half) {
  ForVectors(half, [&](int i, int n) {
    const Vec a = Load(x + i, n);
    const Vec b = Load(x + half + i, n);
    const Vec cosine = Load(angles + i, n);
    const Vec sine = Load(angles + half + i, n);
    Store(x + i, a * cosine - b * sine, n);
    Store(x + half + i, b * cosine + a * sine, n);
  });
}

}  // namespace

void HeadNormRopeTokens(const HeadNormRopeParams& params, int64_t begin, int64_t end,
                        float* scratch) {
  const int half = params.head_dim / 2;
  for (int64_t token = begin; token < end; ++token) {
    if (params.inverse_frequency != nullptr) {
      Angles(params.inverse_frequency, params.position[token], half, scratch);
    }
    for (int head = 0; head < params.heads; ++head) {
      float* x = params.x.f32(token) + int64_t{head} * params.head_dim;
      if (params.norm_weight != nullptr) {
        Normalise(x, params.norm_weight, params.head_dim, params.eps);
      }
      if (params.inverse_frequency != nullptr) Rotate(x, scratch, half);
    }
  }
}

}  // namespace troupe::TROUPE_ISA
