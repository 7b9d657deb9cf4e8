#include "worker/weight_loader.h"

#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/bf16.h"

namespace troupe {
namespace {

// Random values, and views of them.
class Stored {
 public:
  Stored(StoredDType dtype, std::vector<int64_t> shape, uint32_t seed) : shape_(std::move(shape)) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    int64_t count = 1;
    for (const int64_t size : shape_) count *= size;
    for (int64_t i = 0; i < count; ++i) {
      const float value = normal(random);
      const Bf16 rounded = ToBf16(value);
      values_.push_back(dtype == StoredDType::kBF16 ? ToF32(rounded) : value);
      const auto append = [&](const auto& stored) {
        const auto* bytes = reinterpret_cast<const std::byte*>(&stored);
        bytes_.insert(bytes_.end(), bytes, bytes + sizeof(stored));
      };
      dtype == StoredDType::kBF16 ? append(rounded) : append(value);
    }
    view_.name = "stored";
    view_.dtype = dtype;
    view_.shape = shape_;
    view_.bytes = bytes_;
  }
  Stored(const Stored&) = delete;
  Stored& operator=(const Stored&) = delete;

  const TensorView& view() const { return view_; }
  const std::vector<float>& values() const { return values_; }

  LinearWeights Linear() const { return Linear(MatrixView::Of(view_)); }
  // Of a tensor [cols, rows].
  LinearWeights Transposed() const {
    const int64_t rows = view_.shape[1];
    return Linear(
        MatrixView{.rows = rows,
                   .cols = view_.shape[0],
                   .storage = PlainStorage{.tensor = view_, .row_stride = 1, .col_stride = rows}});
  }

 private:
  static LinearWeights Linear(const MatrixView& matrix) {
    return {.weight = matrix,
            .out_features = static_cast<int>(matrix.rows),
            .in_features = static_cast<int>(matrix.cols)};
  }

  std::vector<int64_t> shape_;
  std::vector<float> values_;
  std::vector<std::byte> bytes_;
  TensorView view_;
};

std::vector<float> ValuesOf(const DeviceTensor& tensor) {
  return {tensor.f32(), tensor.f32() + tensor.view.rows * tensor.view.cols};
}

// W e_i for every unit vector e_i: the matrix itself, [inputs, outputs].
std::vector<float> ColumnsOf(Ops& ops, const PackedMatrix& matrix) {
  const int64_t inputs = matrix.inputs();
  std::vector<float> x(inputs * inputs, 0.0F);
  for (int64_t i = 0; i < inputs; ++i) x[i * inputs + i] = 1;
  std::vector<float> out(inputs * matrix.outputs());
  ops.Linear({{x.data(), DType::kF32, inputs, inputs, inputs},
              &matrix,
              {out.data(), DType::kF32, inputs, matrix.outputs(), matrix.outputs()}});
  ops.Synchronize();
  return out;
}

class WeightLoaderTest : public ::testing::Test {
 protected:
  WeightLoader Loader(float norm_weight_offset = 0) {
    return {ops_.get(), options_, norm_weight_offset,
            [this](int64_t bytes) { bytes_done_ = bytes; }};
  }

  const LoadOptions options_ = {.mode = ComputeMode::kF32};
  std::unique_ptr<Ops> ops_ = MakeReferenceOps();
  int64_t bytes_done_ = 0;
};

TEST_F(WeightLoaderTest, AMatrixIsTheSameHoweverItIsStored) {
  for (const StoredDType dtype : {StoredDType::kF32, StoredDType::kBF16}) {
    const Stored first(dtype, {5, 7}, 1);
    const Stored second(dtype, {7, 3}, 2);
    WeightLoader loader = Loader();
    const auto matrix = loader.Matrix({first.Linear(), second.Transposed()});
    // In the type of its values, not in a wider one.
    EXPECT_EQ(matrix->bytes(), 8 * 7 * (dtype == StoredDType::kF32 ? 4 : 2));
    EXPECT_EQ(loader.device_bytes(), matrix->bytes());
    EXPECT_EQ(bytes_done_, matrix->bytes());
    const std::vector<float> got = ColumnsOf(*ops_, *matrix);
    for (int col = 0; col < 7; ++col) {
      for (int row = 0; row < 8; ++row) {
        const float want =
            row < 5 ? first.values()[row * 7 + col] : second.values()[col * 3 + row - 5];
        EXPECT_EQ(got[col * 8 + row], want) << row << ", " << col;
      }
    }
  }
}

TEST_F(WeightLoaderTest, PartsOfTwoTypesMakeAMatrixOfF32) {
  const Stored first(StoredDType::kF32, {2, 3}, 1);
  const Stored second(StoredDType::kBF16, {1, 3}, 2);
  WeightLoader loader = Loader();
  const auto matrix = loader.Matrix({first.Linear(), second.Linear()});
  EXPECT_EQ(matrix->bytes(), 3 * 3 * 4);
  const std::vector<float> got = ColumnsOf(*ops_, *matrix);
  for (int col = 0; col < 3; ++col) {
    EXPECT_EQ(got[col * 3], first.values()[col]);
    EXPECT_EQ(got[col * 3 + 2], second.values()[col]);
  }
}

TEST_F(WeightLoaderTest, NormsGetTheOffset) {
  const Stored norm(StoredDType::kBF16, {6}, 3);
  std::vector<float> want = norm.values();
  WeightLoader loader = Loader(1.0F);
  EXPECT_EQ(ValuesOf(loader.Floats(norm.view())), want);
  for (float& value : want) value += 1;
  EXPECT_EQ(ValuesOf(loader.Norm(norm.view())), want);
  EXPECT_TRUE(loader.Norm(TensorView()).empty());
}

TEST_F(WeightLoaderTest, PartsWithoutABiasGetZeros) {
  const Stored weight(StoredDType::kF32, {2, 3}, 4);
  const Stored bias(StoredDType::kF32, {1, 2}, 5);
  LinearWeights with = weight.Linear();
  with.bias = MatrixView::Of(bias.view());
  WeightLoader loader = Loader();
  EXPECT_TRUE(loader.Bias({weight.Linear()}).empty());
  EXPECT_THAT(ValuesOf(loader.Bias({weight.Linear(), with})),
              ::testing::ElementsAre(0, 0, bias.values()[0], bias.values()[1]));
}

}  // namespace
}  // namespace troupe
