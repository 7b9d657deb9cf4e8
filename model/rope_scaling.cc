#include "model/rope_scaling.h"

#include <cmath>

namespace troupe {

std::vector<float> RopeFrequencies(double theta, int rotated_dims) {
  std::vector<float> frequencies;
  for (int j = 0; j < rotated_dims / 2; ++j) {
    frequencies.push_back(static_cast<float>(std::pow(theta, -2.0 * j / rotated_dims)));
  }
  return frequencies;
}

}  // namespace troupe
