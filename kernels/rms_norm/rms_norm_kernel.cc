#include "kernels/rms_norm/rms_norm_kernel.h"

#include "kernels/simd/simd.h"

namespace troupe::TROUPE_ISA {
namespace {

float SumOfSquares(const float* x, int64_t count) {
  Vec even = Zero();
  Vec odd = Zero();
  int64_t i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
    const Vec a = Load(x + i);
    const Vec b = Load(x + i + kLanes);
    even = Fma(a, a, even);
    odd = Fma(b, b, odd);
  }
  for (; i < count; i += kLanes) {
    const Vec a = count - i < kLanes ? Load(x + i, static_cast<int>(count - i)) : Load(x + i);
    even = Fma(a, a, even);
  }
  return Sum(even + odd);
}

}  // namespace

void RmsNormRows(const RmsNormParams& params, int64_t begin, int64_t end) {
  const int64_t count = params.x.cols;
  const float* weight = params.weight.f32();
  for (int64_t row = begin; row < end; ++row) {
    const float* x = params.x.f32(row);
    float* out = params.out.f32(row);
    const float squares =
        params.square_sums == nullptr ? SumOfSquares(x, count) : params.square_sums[row];
    const float mean = squares / static_cast<float>(count * params.parts);
    const Vec scale = Set1(1.0f) / Sqrt(Set1(mean + params.eps));
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      const Vec normed = Load(x + i) * scale * Load(weight + i);
      Store(out + i, params.accumulate ? Load(out + i) + normed : normed);
    }
    if (i < count) {
      const int tail = static_cast<int>(count - i);
      const Vec normed = Load(x + i, tail) * scale * Load(weight + i, tail);
      Store(out + i, params.accumulate ? Load(out + i, tail) + normed : normed, tail);
    }
  }
}

void SquareSumRows(const SquareSumsParams& params, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    params.sums[row] = SumOfSquares(params.x.f32(row), params.x.cols);
  }
}

}  // namespace troupe::TROUPE_ISA
