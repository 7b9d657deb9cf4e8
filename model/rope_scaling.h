// How fast each pair of dimensions turns, with and without the scalings that stretch a model's
// context.
//
// Thread model: pure functions.
#ifndef TROUPE_MODEL_ROPE_SCALING_H_
#define TROUPE_MODEL_ROPE_SCALING_H_

#include <vector>

namespace troupe {

// theta^(-2j / rotated_dims) for each pair j, in radians a token (Su et al., 2021).
std::vector<float> RopeFrequencies(double theta, int rotated_dims);

}  // namespace troupe

#endif  // TROUPE_MODEL_ROPE_SCALING_H_
