#include "kernels/moe_route/moe_route_kernel.h"

#include "kernels/simd/simd.h"

namespace troupe::TROUPE_ISA {
namespace {

constexpr float kTaken = -__builtin_inff();

// Calls each(i, n) for vectors of n = kLanes elements from i on, the last perhaps shorter.
template <class Function>
inline void ForVectors(int64_t count, const Function& each) {
  for (int64_t i = 0; i < count; i += kLanes) {
    each(i, static_cast<int>(count - i < kLanes ? count - i : kLanes));
  }
}

int32_t IndexOfLargest(const float* values, int64_t count) {
  int64_t best = 0;
  for (int64_t i = 1; i < count; ++i) {
    if (values[i] > values[best]) best = i;
  }
  return static_cast<int32_t>(best);
}

void ScoreSigmoid(const float* logits, int64_t count, float* scores) {
  ForVectors(count, [&](int64_t i, int n) { Store(scores + i, Sigmoid(Load(logits + i, n)), n); });
}

void ScoreSoftmax(const float* logits, int64_t count, float* scores) {
  const Vec largest = Set1(logits[IndexOfLargest(logits, count)]);
  Vec sums = Zero();
  ForVectors(count, [&](int64_t i, int n) {
    Store(scores + i, Exp(Load(logits + i, n) - largest), n);
    sums = sums + Load(scores + i, n);
  });
  const Vec sum = Set1(Sum(sums));
  ForVectors(count, [&](int64_t i, int n) { Store(scores + i, Load(scores + i, n) / sum, n); });
}

// What experts are chosen by; a bias may be null.
void AddBias(const float* scores, const float* bias, int64_t count, float* choice) {
  ForVectors(count, [&](int64_t i, int n) {
    const Vec score = Load(scores + i, n);
    Store(choice + i, bias == nullptr ? score : score + Load(bias + i, n), n);
  });
}

float ScoreGroup(GroupScore kind, const float* choice, int64_t count) {
  const int32_t best = IndexOfLargest(choice, count);
  if (kind == GroupScore::kMax || count == 1) return choice[best];
  float second = kTaken;
  for (int64_t i = 0; i < count; ++i) {
    if (i != best && choice[i] > second) second = choice[i];
  }
  return choice[best] + second;
}

// Takes the experts outside of the best groups out of the choice.
void LeaveBestGroups(const MoeRouteParams& params, float* choice, float* group_scores) {
  const int64_t size = params.logits.cols / params.groups;
  for (int g = 0; g < params.groups; ++g) {
    group_scores[g] = ScoreGroup(params.group_score, choice + g * size, size);
  }
  for (int i = 0; i < params.groups_chosen; ++i) {
    group_scores[IndexOfLargest(group_scores, params.groups)] = kTaken;
  }
  for (int g = 0; g < params.groups; ++g) {
    for (int64_t e = 0; group_scores[g] != kTaken && e < size; ++e) choice[g * size + e] = kTaken;
  }
}

}  // namespace

void MoeRouteRows(const MoeRouteParams& params, int64_t begin, int64_t end, float* scratch) {
  const int64_t count = params.logits.cols;
  float* scores = scratch;
  float* choice = scratch + count;
  const bool sigmoid = params.scoring == RouterScoring::kSigmoid;
  for (int64_t row = begin; row < end; ++row) {
    (sigmoid ? ScoreSigmoid : ScoreSoftmax)(params.logits.f32(row), count, scores);
    AddBias(scores, params.bias, count, choice);
    if (params.group_score != GroupScore::kNone) {
      LeaveBestGroups(params, choice, scratch + 2 * count);
    }
    int32_t* experts = params.experts + row * params.top_k;
    float* weights = params.weights + row * params.top_k;
    float sum = 0;
    for (int k = 0; k < params.top_k; ++k) {
      experts[k] = IndexOfLargest(choice, count);
      choice[experts[k]] = kTaken;
      weights[k] = scores[experts[k]];
      sum += weights[k];
    }
    for (int k = 0; k < params.top_k; ++k) {
      weights[k] = (params.normalize ? weights[k] / (sum + 1e-20f) : weights[k]) * params.scale;
    }
  }
}

}  // namespace troupe::TROUPE_ISA
