#include "model/weight_quantizer.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/bf16.h"
#include "kernels/linear/linear.h"

namespace troupe {
namespace {

// A scale under the one that just reaches the largest weight cuts that off and serves the others.
constexpr int kCandidates = 12;
constexpr float kCandidateStep = 0.04F;
constexpr float kCandidateStep8 = 0.005F;
constexpr int64_t kRowsAtOnce = 16;

const std::vector<std::pair<std::string, IntegerFormat>>& NamedFormats() {
  static const auto& formats = *new std::vector<std::pair<std::string, IntegerFormat>>(
      {{"int8", {.bits = 8, .group = 128}},
       {"int4-g32", {.bits = 4, .group = 32}},
       {"int4-g64", {.bits = 4, .group = 64}},
       {"int4-g128", {.bits = 4, .group = 128}},
       {"w8a8", {.bits = 8, .group = 128, .activations = true}},
       {"w4a8-g32", {.bits = 4, .group = 32, .activations = true}},
       {"w4a8-g64", {.bits = 4, .group = 64, .activations = true}},
       {"w4a8-g128", {.bits = 4, .group = 128, .activations = true}},
       {"fp8", {.bits = 8, .group = kFp8Inputs, .activations = true, .fp8 = true}}});
  return formats;
}

// To the nearest integer, ties to even, for magnitudes under 2^22; unlike std::nearbyint it is two
// additions on any machine.
float RoundSmall(float value) { return (value + 12582912.0F) - 12582912.0F; }

float Quantized(float weight, float inverse, float middle) {
  return std::clamp(RoundSmall(weight * inverse), -middle, middle - 1);
}

double Error(absl::Span<const float> weights, absl::Span<const float> importance, float scale,
             float middle) {
  const float inverse = 1.0F / scale;
  float sum = 0.0F;
  for (size_t i = 0; i < weights.size(); ++i) {
    const float off = weights[i] - scale * Quantized(weights[i], inverse, middle);
    sum += off * off * (importance.empty() ? 1.0F : importance[i]);
  }
  return sum;
}

void QuantizeRow(absl::Span<const float> values, const IntegerFormat& format, int64_t row,
                 CodedWeights& coded) {
  const int64_t groups = coded.view().groups();
  std::byte* codes = coded.codes.data() + row * coded.view().row_bytes();
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t first = g * format.group;
    const absl::Span<const float> weights = values.subspan(first, format.group);
    const float scale = GroupScale(weights, {}, format.bits);
    coded.scales[row * groups + g] = scale;
    for (size_t i = 0; i < weights.size(); ++i) {
      const int64_t col = first + static_cast<int64_t>(i);
      const uint32_t code = NearestCode(weights[i], scale, format.bits);
      const bool nibbles = format.bits == 4;
      codes[nibbles ? col / 2 : col] |=
          static_cast<std::byte>(nibbles ? code << 4 * (col % 2) : code);
    }
  }
}

// `count` rows, of one block, from row `first` on.
void QuantizeFp8Rows(absl::Span<const float> values, int64_t first, int64_t count,
                     CodedWeights& coded) {
  const int64_t groups = coded.view().groups();
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t begin = g * coded.group;
    const int64_t end = std::min(begin + coded.group, coded.cols);
    float range = 0.0F;
    for (int64_t row = 0; row < count; ++row) {
      for (int64_t col = begin; col < end; ++col) {
        range = std::max(range, std::fabs(values[row * coded.cols + col]));
      }
    }
    const float scale = range > 0.0F ? range / kMostFp8 : 1.0F;
    for (int64_t row = 0; row < count; ++row) {
      coded.scales[(first + row) * groups + g] = scale;
      for (int64_t col = begin; col < end; ++col) {
        coded.codes[(first + row) * coded.cols + col] =
            static_cast<std::byte>(ToE4M3(values[row * coded.cols + col] / scale));
      }
    }
  }
}

}  // namespace

const std::vector<std::string>& IntegerFormatNames() {
  static const auto& names = *new std::vector<std::string>([] {
    std::vector<std::string> all = {"none"};
    for (const auto& [name, format] : NamedFormats()) all.push_back(name);
    return all;
  }());
  return names;
}

absl::StatusOr<std::optional<IntegerFormat>> ParseIntegerFormat(absl::string_view name) {
  if (name.empty() || name == "none") return std::nullopt;
  for (const auto& [known, format] : NamedFormats()) {
    if (known == name) return format;
  }
  return absl::InvalidArgumentError(absl::StrCat("quantize: found '", name, "', wanted one of ",
                                                 absl::StrJoin(IntegerFormatNames(), ", ")));
}

std::string NameOf(const std::optional<IntegerFormat>& format) {
  for (const auto& [name, known] : NamedFormats()) {
    if (format == known) return name;
  }
  return format.has_value() ? absl::StrCat("int", format->bits, "-g", format->group) : "none";
}

float GroupScale(absl::Span<const float> weights, absl::Span<const float> importance, int bits) {
  const auto middle = static_cast<float>(1 << (bits - 1));
  float extreme = 0.0F;
  for (float weight : weights) {
    if (std::fabs(weight) > std::fabs(extreme)) extreme = weight;
  }
  if (extreme == 0.0F) return 1.0F;
  // The codes reach one further below zero than above it: the largest weight gets that side.
  const float reach = -extreme / middle;
  const float step = bits == 8 ? kCandidateStep8 : kCandidateStep;
  float best = 0.0F;
  double least = 0.0;
  for (int i = 0; i < kCandidates; ++i) {
    const float scale = ToF32(ToBf16(reach * (1.0F - step * static_cast<float>(i))));
    if (scale == 0.0F) break;  // weights so small that bf16 has no scale for them
    const double error = Error(weights, importance, scale, middle);
    if (best == 0.0F || error < least) {
      best = scale;
      least = error;
    }
  }
  return best == 0.0F ? 1.0F : best;
}

uint8_t NearestCode(float weight, float scale, int bits) {
  const auto middle = static_cast<float>(1 << (bits - 1));
  return static_cast<uint8_t>(Quantized(weight, 1.0F / scale, middle) + middle);
}

CodedWeights RoomForCodes(const MatrixView& matrix, const IntegerFormat& format) {
  CodedWeights coded;
  coded.format = format.fp8         ? CodeFormat::kFp8E4M3
                 : format.bits == 8 ? CodeFormat::kInt8
                                    : CodeFormat::kInt4;
  coded.scale_format = format.fp8 ? ScaleFormat::kF32 : ScaleFormat::kBf16;
  coded.rows = matrix.rows;
  coded.cols = matrix.cols;
  coded.group = format.group;
  coded.codes.resize(static_cast<size_t>(matrix.rows * coded.view().row_bytes()));
  coded.scales.resize(static_cast<size_t>(matrix.rows * coded.view().groups()));
  return coded;
}

CodedWeights QuantizeMatrix(const MatrixView& matrix, const IntegerFormat& format, int threads) {
  CodedWeights coded = RoomForCodes(matrix, format);
  std::atomic<int64_t> next{0};
  const int64_t rows_at_once = format.fp8 ? format.group : kRowsAtOnce;
  const auto work = [&] {
    std::vector<float> values(static_cast<size_t>(rows_at_once * matrix.cols));
    for (int64_t first; (first = next.fetch_add(rows_at_once)) < matrix.rows;) {
      const int64_t count = std::min(rows_at_once, matrix.rows - first);
      const auto rows = absl::MakeSpan(values).first(static_cast<size_t>(count * matrix.cols));
      matrix.ReadRows(first, count, rows);
      if (format.fp8) {
        QuantizeFp8Rows(rows, first, count, coded);
        continue;
      }
      for (int64_t r = 0; r < count; ++r) {
        QuantizeRow(rows.subspan(r * matrix.cols, matrix.cols), format, first + r, coded);
      }
    }
  };
  std::vector<std::thread> helpers;
  for (int i = 1; i < threads; ++i) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  return coded;
}

}  // namespace troupe
