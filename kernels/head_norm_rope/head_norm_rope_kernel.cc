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

// cosines [half], then sines, times the amplitude.
void Angles(const HeadNormRopeParams& params, int32_t position, int half, float* out) {
  const Vec at = Set1(static_cast<float>(position));
  const Vec amplitude = Set1(params.amplitude);
  ForVectors(half, [&](int i, int n) {
    const SinCosVec value = SinCos(at * Load(params.inverse_frequency + i, n));
    Store(out + i, value.cos * amplitude, n);
    Store(out + half + i, value.sin * amplitude, n);
  });
}

void RotateHalves(float* x, const float* angles, int half) {
  ForVectors(half, [&](int i, int n) {
    const Vec a = Load(x + i, n);
    const Vec b = Load(x + half + i, n);
    const Vec cosine = Load(angles + i, n);
    const Vec sine = Load(angles + half + i, n);
    Store(x + i, a * cosine - b * sine, n);
    Store(x + half + i, b * cosine + a * sine, n);
  });
}

void RotatePairs(float* x, const float* angles, int half) {
  for (int j = 0; j < half; ++j) {
    const float a = x[2 * j];
    const float b = x[2 * j + 1];
    x[2 * j] = a * angles[j] - b * angles[half + j];
    x[2 * j + 1] = b * angles[j] + a * angles[half + j];
  }
}

}  // namespace

void HeadNormRopeTokens(const HeadNormRopeParams& params, int64_t begin, int64_t end,
                        float* scratch) {
  const int half = params.RotatedDims() / 2;
  const auto rotate = params.interleaved ? RotatePairs : RotateHalves;
  for (int64_t token = begin; token < end; ++token) {
    if (params.inverse_frequency != nullptr) {
      Angles(params, params.position[token], half, scratch);
    }
    for (int head = 0; head < params.heads; ++head) {
      float* x = params.x.f32(token) + int64_t{head} * params.head_dim;
      if (params.norm_weight != nullptr) {
        Normalise(x, params.norm_weight, params.head_dim, params.eps);
      }
      if (params.inverse_frequency != nullptr) rotate(x + params.first_rotated, scratch, half);
    }
  }
}

}  // namespace troupe::TROUPE_ISA
