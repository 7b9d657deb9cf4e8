// Matrix product with weights that were packed for the device: out = x W^T + bias, or out += that.
//
// Invariant: a row of the result does not depend on the other rows of x, bit for bit, so that a
// sequence gets the same tokens in any batch.
#ifndef TROUPE_KERNELS_LINEAR_LINEAR_H_
#define TROUPE_KERNELS_LINEAR_LINEAR_H_

#include "kernels/rms_norm/rms_norm.h"
#include "kernels/tensor.h"

namespace troupe {

// How products are formed. kF32: weights upcast, x as it is. kBf16: x rounded to bf16 (nearest
// even), products and sums in f32. The others are for integer codes with groups of at most
// kMostIntegerInputs: x becomes integers q = x * (127 / m), rounded to nearest even, which stand
// for q * (m / 127), where m is the largest magnitude of x, kInt8Groups: in the group of the
// weights, kInt8Rows: in the row; sums over a group are exact. A group or row whose m is under
// kLeastIntegerRange counts as zero, and one with a NaN or an infinity gives NaN. kFp8Groups is for
// e4m3 codes in groups of kFp8Inputs: in each of these groups x, rounded to bf16, becomes numbers
// of e4m3, q = x * (448 / m) rounded to nearest even, which stand for q * (m / 448).
enum class Precision : uint8_t { kF32, kBf16, kInt8Groups, kInt8Rows, kFp8Groups };

constexpr bool RoundsToIntegers(Precision precision) {
  return precision == Precision::kInt8Groups || precision == Precision::kInt8Rows;
}
inline constexpr int64_t kMostIntegerInputs = 65536;  // * 255 * 127 < 2^31
inline constexpr float kLeastIntegerRange = 0x1p-100F;
inline constexpr int64_t kFp8Inputs = 128;
inline constexpr float kMostFp8 = 448.0F;

// Weights in the layout that a device's kernels like best. Made by Ops::Pack, read-only after.
class PackedMatrix {
 public:
  virtual ~PackedMatrix() = default;

  int64_t outputs() const { return outputs_; }
  int64_t inputs() const { return inputs_; }
  Precision precision() const { return precision_; }
  // Bytes that a product reads of this matrix.
  int64_t bytes() const { return bytes_; }

 protected:
  PackedMatrix(int64_t outputs, int64_t inputs, Precision precision, int64_t bytes)
      : outputs_(outputs), inputs_(inputs), precision_(precision), bytes_(bytes) {}

 private:
  int64_t outputs_;
  int64_t inputs_;
  Precision precision_;
  int64_t bytes_;
};

struct LinearParams {
  Tensor x;                         // [T, inputs] f32, or bf16 where Ops::TakesRounded
  const PackedMatrix* w = nullptr;  // [outputs, inputs]
  Tensor out;                       // [T, outputs] f32
  bool accumulate = false;
  const float* bias = nullptr;  // [outputs]; null: none
  InputNorm norm;
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_LINEAR_H_
