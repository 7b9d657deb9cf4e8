#include "kernels/ceiling/ceiling_kernel.h"

#include "kernels/simd/integers.h"
#include "kernels/simd/simd.h"

namespace troupe::TROUPE_ISA {
namespace {

// Accumulators enough to hide the latency of any multiply-add.
constexpr int kAccumulators = 12;

template <class Step>
float Spin(int64_t rounds, Step step) {
  Vec acc[kAccumulators];
  for (int i = 0; i < kAccumulators; ++i) acc[i] = Set1(static_cast<float>(i));
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kAccumulators; ++i) acc[i] = step(acc[i]);
  }
  Vec sum = Zero();
  for (int i = 0; i < kAccumulators; ++i) sum = sum + acc[i];
  return Sum(sum);
}

// Multiply-adds of 4 bytes in each lane.
float SpinBytes(int64_t rounds) {
  const int8_t bytes[4] = {1, -2, 3, 4};
  const CodeVec word = Set1Word(bytes);
  IntVec acc[kAccumulators];
  for (int i = 0; i < kAccumulators; ++i) acc[i] = Set1Int(i);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kAccumulators; ++i) acc[i] = DotBytes(word, word, acc[i]);
  }
  Vec sum = Zero();
  for (int i = 0; i < kAccumulators; ++i) sum = sum + ToFloats(acc[i]);
  return Sum(sum);
}

}  // namespace

void SpinMultiplyAdds(Precision precision, int64_t rounds, int64_t& multiply_adds) {
  if (precision != Precision::kF32 && precision != Precision::kBf16) {
    volatile float sink = SpinBytes(rounds);
    static_cast<void>(sink);
    multiply_adds += rounds * kAccumulators * kLanes * 4;
    return;
  }
  const bool dots = kNativeDotPairs && precision == Precision::kBf16;
  const Bf16 one[2] = {ToBf16(1.0f), ToBf16(0.5f)};
  const PairVec pair = Set1Pair(one);
  const Vec factor = Set1(0.999f);
  volatile float sink = dots ? Spin(rounds, [&](Vec acc) { return DotPairs(pair, pair, acc); })
                             : Spin(rounds, [&](Vec acc) { return Fma(factor, factor, acc); });
  static_cast<void>(sink);
  multiply_adds += rounds * kAccumulators * kLanes * (dots ? 2 : 1);
}

void ReadFloats(const float* values, int64_t count, float& sum) {
  Vec acc[4] = {Zero(), Zero(), Zero(), Zero()};
  for (int64_t i = 0; i < count; i += 4 * kLanes) {
    for (int j = 0; j < 4; ++j) acc[j] = Max(acc[j], Load(values + i + j * kLanes));
  }
  sum += ReduceMax(Max(Max(acc[0], acc[1]), Max(acc[2], acc[3])));
}

}  // namespace troupe::TROUPE_ISA
