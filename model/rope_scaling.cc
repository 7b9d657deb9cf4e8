#include "model/rope_scaling.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>

namespace troupe {
namespace {

using Frequencies = std::vector<float>;

void Scale(std::monostate /*none*/, double /*theta*/, int /*rotated_dims*/, Frequencies& /*all*/) {}

void Scale(const LinearRopeScaling& linear, double /*theta*/, int /*rotated_dims*/,
           Frequencies& frequencies) {
  for (float& frequency : frequencies) frequency /= static_cast<float>(linear.factor);
}

void Scale(const Llama3RopeScaling& llama3, double /*theta*/, int /*rotated_dims*/,
           Frequencies& frequencies) {
  const auto factor = static_cast<float>(llama3.factor);
  const auto context = static_cast<float>(llama3.original_context_tokens);
  const auto low = static_cast<float>(llama3.low_frequency_factor);
  const auto high = static_cast<float>(llama3.high_frequency_factor);
  for (float& frequency : frequencies) {
    const float wavelength = 2.0F * std::numbers::pi_v<float> / frequency;
    if (wavelength < context / high) continue;
    if (wavelength > context / low) {
      frequency /= factor;
    } else {
      const float kept = (context / wavelength - low) / (high - low);
      frequency = (1.0F - kept) * frequency / factor + kept * frequency;
    }
  }
}

// The pair, as a fraction, that turns `turns` times in the original context.
double PairThatTurns(double turns, const YarnRopeScaling& yarn, double theta, int rotated_dims) {
  return rotated_dims * std::log(yarn.original_context_tokens / (turns * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(theta));
}

void Scale(const YarnRopeScaling& yarn, double theta, int rotated_dims, Frequencies& frequencies) {
  double first = PairThatTurns(yarn.beta_fast, yarn, theta, rotated_dims);
  double last = PairThatTurns(yarn.beta_slow, yarn, theta, rotated_dims);
  if (yarn.truncate) {
    first = std::floor(first);
    last = std::ceil(last);
  }
  first = std::max(first, 0.0);
  last = std::min(last, rotated_dims - 1.0);
  if (first == last) last += 0.001;  // a step instead of a ramp
  const auto factor = static_cast<float>(yarn.factor);
  for (size_t j = 0; j < frequencies.size(); ++j) {
    const float along =
        (static_cast<float>(j) - static_cast<float>(first)) / static_cast<float>(last - first);
    const float kept = 1.0F - std::clamp(along, 0.0F, 1.0F);
    const float slowed = 1.0F / (factor * (1.0F / frequencies[j]));
    frequencies[j] = slowed * (1.0F - kept) + frequencies[j] * kept;
  }
}

// How much a context that is `factor` times as long wants scores sharpened (YaRN, equation 22).
double Temperature(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

double Amplitude(const YarnRopeScaling& yarn) {
  if (yarn.attention_factor.has_value()) return *yarn.attention_factor;
  if (yarn.mscale != 0 && yarn.mscale_all_dim != 0) {
    return Temperature(yarn.factor, yarn.mscale) / Temperature(yarn.factor, yarn.mscale_all_dim);
  }
  return Temperature(yarn.factor, 1.0);
}

}  // namespace

std::vector<float> RopeFrequencies(double theta, int rotated_dims) {
  std::vector<float> frequencies;
  for (int j = 0; j < rotated_dims / 2; ++j) {
    const float exponent = static_cast<float>(2 * j) / static_cast<float>(rotated_dims);
    frequencies.push_back(1.0F / std::pow(static_cast<float>(theta), exponent));
  }
  return frequencies;
}

RopeDescription DescribeRope(RopeKind kind, const RopeParameters& parameters, int head_dim) {
  RopeDescription rope{.kind = kind,
                       .rotated_dims = static_cast<int>(head_dim * parameters.rotated_part)};
  rope.inverse_frequency = RopeFrequencies(parameters.theta, rope.rotated_dims);
  std::visit(
      [&](const auto& scaling) {
        Scale(scaling, parameters.theta, rope.rotated_dims, rope.inverse_frequency);
      },
      parameters.scaling);
  if (const auto* yarn = std::get_if<YarnRopeScaling>(&parameters.scaling)) {
    rope.amplitude = static_cast<float>(Amplitude(*yarn));
  }
  return rope;
}

double YarnScoreFactor(const RopeParameters& parameters) {
  const auto* yarn = std::get_if<YarnRopeScaling>(&parameters.scaling);
  if (yarn == nullptr || yarn->mscale_all_dim == 0) return 1.0;
  const double temperature = Temperature(yarn->factor, yarn->mscale_all_dim);
  return temperature * temperature;
}

}  // namespace troupe
