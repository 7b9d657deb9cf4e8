// Weights to integers in groups, to the nearest ones: what `--quantize` does while a model loads.
//
// Each group of neighbouring inputs has a scale of its own, and no zero. The scale is the one of
// some candidates with the least squared error, after it has been rounded to bf16, so that codes
// and scales mean the same wherever they are stored.
//
// Thread model: pure functions. Ownership: results own their memory.
#ifndef TROUPE_MODEL_WEIGHT_QUANTIZER_H_
#define TROUPE_MODEL_WEIGHT_QUANTIZER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "model/coded_weights.h"
#include "model/matrix_view.h"

namespace troupe {

struct IntegerFormat {
  int bits = 4;        // 4 or 8
  int64_t group = 64;  // inputs
  // Whether x becomes such numbers as well, in the groups of the weights (Precision::kInt8Groups).
  bool activations = false;
  // Numbers of e4m3 instead of integers: `group` inputs of as many outputs share a scale of f32,
  // the largest magnitude over 448 (as DeepSeek-V3 and Qwen3-FP8 are stored).
  bool fp8 = false;

  bool operator==(const IntegerFormat&) const = default;
};

// "int8" (groups of 128), "int4-g32", "int4-g64" or "int4-g128"; the same with activations as
// integers of 8 bits: "w8a8", "w4a8-g32", "w4a8-g64" or "w4a8-g128"; "fp8": both in e4m3, in groups
// of 128 (Precision::kFp8Groups); "none" gives nothing.
const std::vector<std::string>& IntegerFormatNames();
absl::StatusOr<std::optional<IntegerFormat>> ParseIntegerFormat(absl::string_view name);
std::string NameOf(const std::optional<IntegerFormat>& format);

// The scale of a group of weights, exact in bf16: code * scale with a code from -2^(bits - 1) to
// 2^(bits - 1) - 1. It may be negative, where the group's largest weight is positive. `importance`
// weighs squared errors, one for each weight; empty: all alike.
float GroupScale(absl::Span<const float> weights, absl::Span<const float> importance, int bits);

// The nearest code, as stored: 0 to 2^bits - 1 with its zero in the middle.
uint8_t NearestCode(float weight, float scale, int bits);

// Integer codes and bf16 scales of the matrix' sizes, not yet written.
CodedWeights RoomForCodes(const MatrixView& matrix, const IntegerFormat& format);

// `threads` threads share the rows; the result does not depend on them.
CodedWeights QuantizeMatrix(const MatrixView& matrix, const IntegerFormat& format, int threads);

}  // namespace troupe

#endif  // TROUPE_MODEL_WEIGHT_QUANTIZER_H_
