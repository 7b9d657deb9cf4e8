// How far values are apart, for the golden tests.
#ifndef TROUPE_TESTS_GOLDEN_COMPARE_H_
#define TROUPE_TESTS_GOLDEN_COMPARE_H_

#include <algorithm>
#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "worker/testing/runner_harness.h"

namespace troupe {

inline float Difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  float worst = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    // A NaN must not compare as small.
    worst = std::isfinite(a[i]) ? std::max(worst, std::abs(a[i] - b[i])) : INFINITY;
  }
  return worst;
}

inline float Largest(const std::vector<float>& values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

inline float Difference(const RunnerHarness::Logits& a, const RunnerHarness::Logits& b) {
  EXPECT_EQ(a.size(), b.size());
  float worst = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    worst = std::max(worst, Difference(a[i], b[i]));
  }
  return worst;
}

// Part `index` of `parts` of a golden tensor: of its first dimension.
template <class T>
std::vector<T> Part(const std::vector<T>& values, size_t index, size_t parts) {
  const size_t size = values.size() / parts;
  return {values.begin() + index * size, values.begin() + (index + 1) * size};
}

// The last values: goldens show the last positions, or all.
template <class T>
std::vector<T> Tail(const std::vector<T>& values, size_t count) {
  return {values.end() - count, values.end()};
}

// The root mean square of the differences over that of `want`.
inline double RelativeRms(const std::vector<float>& got, const std::vector<float>& want) {
  EXPECT_EQ(got.size(), want.size());
  double error = 0;
  double scale = 0;
  for (size_t i = 0; i < std::min(got.size(), want.size()); ++i) {
    error += std::pow(got[i] - want[i], 2);
    scale += std::pow(want[i], 2);
  }
  return std::sqrt(error / scale);
}

}  // namespace troupe

#endif  // TROUPE_TESTS_GOLDEN_COMPARE_H_
