// How fast each pair of dimensions turns, with and without the scalings that stretch a model's
// context.
//
// Frequencies are computed in f32, in the order of operations that the checkpoints were trained
// with: at a late position the last bit of a frequency is a visible angle.
//
// Thread model: pure functions.
#ifndef TROUPE_MODEL_ROPE_SCALING_H_
#define TROUPE_MODEL_ROPE_SCALING_H_

#include <optional>
#include <variant>
#include <vector>

#include "model/description.h"

namespace troupe {

// Every frequency is divided by `factor` (Chen et al., 2023, position interpolation).
struct LinearRopeScaling {
  double factor = 1.0;
};

// Pairs that turn fewer than low_frequency_factor times in the original context are slowed by
// `factor`, those that turn more than high_frequency_factor times stay, and between them the two
// are blended (Llama 3.1).
struct Llama3RopeScaling {
  double factor = 1.0;
  double low_frequency_factor = 1.0;
  double high_frequency_factor = 4.0;
  double original_context_tokens = 0;
};

// YaRN (Peng et al., 2023): pairs that turn more than beta_fast times in the original context stay,
// those that turn fewer than beta_slow times are slowed by `factor`, with a ramp over the pairs
// between them.
struct YarnRopeScaling {
  double factor = 1.0;
  double original_context_tokens = 0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  bool truncate = true;                    // the ramp begins and ends at whole pairs
  std::optional<double> attention_factor;  // absent: from factor and the two below
  double mscale = 0;                       // 0: absent
  double mscale_all_dim = 0;               // 0: absent
};

struct RopeParameters {
  double theta = 10000.0;
  double rotated_part = 1.0;  // of a head's dimensions
  std::variant<std::monostate, LinearRopeScaling, Llama3RopeScaling, YarnRopeScaling> scaling;
};

// theta^(-2j / rotated_dims) for each pair j, in radians a token (Su et al., 2021).
std::vector<float> RopeFrequencies(double theta, int rotated_dims);

// The angles of a head of `head_dim` dimensions, rounded down to the part that is rotated.
RopeDescription DescribeRope(RopeKind kind, const RopeParameters& parameters, int head_dim);

// What DeepSeek multiplies its attention scores by so that they stay as sharp in a longer context:
// the square of YaRN's temperature for mscale_all_dim; 1 without it.
double YarnScoreFactor(const RopeParameters& parameters);

}  // namespace troupe

#endif  // TROUPE_MODEL_ROPE_SCALING_H_
