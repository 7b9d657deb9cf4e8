#include "kernels/moe_route/moe_route_kernel.h"

#include "kernels/simd/simd.h"

namespace troupe::TROUPE_ISA {
namespace {

constexpr float kTaken = -__builtin_inff();

// scores = sigmoid(logits), biased = scores + bias.
void Score(const float* logits, const float* bias, int64_t count, float* scores, float* biased) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const int n = static_cast<int>(count - i < kLanes ? count - i : kLanes);
    const Vec score = Sigmoid(Load(logits + i, n));
    Store(scores + i, score, n);
    Store(biased + i, score + Load(bias + i, n), n);
  }
}

int32_t IndexOfLargest(const float* values, int64_t count) {
  int64_t best = 0;
  for (int64_t i = 1; i < count; ++i) {
    if (values[i] > values[best]) best = i;
  }
  return static_cast<int32_t>(best);
}

}  // namespace

void MoeRouteRows(const MoeRouteParams& params, int64_t begin, int64_t end, float* scores) {
  const int64_t count = params.logits.cols;
  float* biased = scores + count;
  for (int64_t row = begin; row < end; ++row) {
    Score(params.logits.f32(row), params.bias, count, scores, biased);
    int32_t* experts = params.experts + row * params.top_k;
    float* weights = params.weights + row * params.top_k;
    float sum = 0;
    for (int k = 0; k < params.top_k; ++k) {
      experts[k] = IndexOfLargest(biased, count);
      biased[experts[k]] = kTaken;
      weights[k] = scores[experts[k]];
      sum += weights[k];
    }
    for (int k = 0; k < params.top_k; ++k) {
      weights[k] = (params.normalize ? weights[k] / (sum + 1e-20f) : weights[k]) * params.scale;
    }
  }
}

}  // namespace troupe::TROUPE_ISA
