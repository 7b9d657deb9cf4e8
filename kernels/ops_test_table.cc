#include "kernels/ops_test_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace troupe {

std::vector<Case> Joined(const std::vector<std::vector<Case>>& groups) {
  std::vector<Case> all;
  for (const std::vector<Case>& group : groups) all.insert(all.end(), group.begin(), group.end());
  return all;
}

const std::vector<Backend>& Candidates() {
  static const auto& backends = *new std::vector<Backend>(CandidateBackends());
  return backends;
}

Outputs RunOn(const Backend& backend, const Case& c, const std::vector<Step>& steps) {
  TestDevice device(backend);
  return c.run({c.sequences, steps, device, TestSeed()});
}

void ExpectNear(const Output& got, const Output& want) {
  if (want.only_between_runs) return;
  ASSERT_EQ(got.values.size(), want.values.size()) << want.name;
  double worst = 0;
  size_t where = 0;
  for (size_t i = 0; i < want.values.size(); ++i) {
    const double error =
        std::abs(double{got.values[i]} - want.values[i]) / std::max(1.0F, std::abs(want.values[i]));
    if (!(error <= worst)) {
      worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
      where = i;
    }
  }
  EXPECT_LE(worst, std::max(got.tolerance, want.tolerance))
      << want.name << "[" << where << "]: " << got.values[where] << ", reference "
      << want.values[where];
}

}  // namespace troupe
