#include "worker/weight_loader.h"

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
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

// A matrix of bytes in two's complement with a scale a row, as compressed-tensors stores them.
class StoredBytes {
 public:
  StoredBytes(int64_t rows, int64_t cols, uint32_t seed) {
    std::mt19937 random(seed);
    codes_.resize(static_cast<size_t>(rows * cols));
    for (std::byte& code : codes_) code = static_cast<std::byte>(random() & 0xFF);
    scales_.resize(static_cast<size_t>(rows));
    for (float& scale : scales_) scale = 0.5F + static_cast<float>(random() % 100) * 0.01F;
    GroupedStorage storage;
    storage.codes = {.tensor = View("bytes", StoredDType::kI8, {rows, cols}, codes_.data(), 1),
                     .bits = 8,
                     .flip = 0x80};
    storage.scales = View("scales", StoredDType::kF32, {rows, 1}, scales_.data(), 4);
    storage.group_size = cols;
    storage.groups = 1;
    matrix_ = {.rows = rows, .cols = cols, .storage = storage};
  }
  StoredBytes(const StoredBytes&) = delete;
  StoredBytes& operator=(const StoredBytes&) = delete;

  LinearWeights Linear(std::optional<Precision> products) const {
    LinearWeights weights{.weight = matrix_,
                          .out_features = static_cast<int>(matrix_.rows),
                          .in_features = static_cast<int>(matrix_.cols)};
    weights.weight.products = products;
    return weights;
  }
  float Value(int64_t row, int64_t col) const {
    return static_cast<float>(static_cast<int8_t>(codes_[row * matrix_.cols + col])) * scales_[row];
  }

 private:
  static TensorView View(const char* name, StoredDType dtype, std::vector<int64_t> shape,
                         const void* data, int64_t element_bytes) {
    TensorView view;
    view.name = name;
    view.dtype = dtype;
    view.bytes = {static_cast<const std::byte*>(data),
                  static_cast<size_t>(shape[0] * shape[1] * element_bytes)};
    shapes_.push_back(std::move(shape));
    view.shape = shapes_.back();
    return view;
  }

  inline static std::deque<std::vector<int64_t>> shapes_;
  std::vector<std::byte> codes_;
  std::vector<float> scales_;
  MatrixView matrix_;
};

TEST_F(WeightLoaderTest, ProductsAreFormedAsTheCheckpointWants) {
  constexpr int kInputs = 24;
  const StoredBytes stored(3, kInputs, 1);
  const StoredBytes other(2, kInputs, 2);
  WeightLoader loader = Loader();
  const auto matrix =
      loader.Matrix({stored.Linear(Precision::kInt8Rows), other.Linear(Precision::kInt8Rows)});
  EXPECT_EQ(matrix->precision(), Precision::kInt8Rows);
  // 63.5 is the largest: an integer stands for half. 3.3 is 6.6 of them, so 7; -0.2 none.
  std::vector<float> x(kInputs, 0.0F);
  x[0] = 63.5F;
  x[7] = 3.3F;
  x[20] = -0.2F;
  std::vector<float> out(5);
  ops_->Linear({{x.data(), DType::kF32, 1, kInputs, kInputs},
                matrix.get(),
                {out.data(), DType::kF32, 1, 5, 5}});
  for (int row = 0; row < 5; ++row) {
    const StoredBytes& from = row < 3 ? stored : other;
    const int own = row < 3 ? row : row - 3;
    EXPECT_NEAR(out[row], 63.5F * from.Value(own, 0) + 3.5F * from.Value(own, 7), 1e-2);
  }
  EXPECT_EQ(loader.Matrix({stored.Linear(std::nullopt)})->precision(), Precision::kF32);
  EXPECT_TRUE(loader.status().ok()) << loader.status();
}

TEST_F(WeightLoaderTest, ActivationsAreNeverLeftOutSilently) {
  const StoredBytes stored(3, 24, 1);
  const Stored plain(StoredDType::kF32, {3, 24}, 2);
  const std::vector<std::vector<LinearWeights>> refused = {
      {stored.Linear(Precision::kInt8Rows), stored.Linear(std::nullopt)},
      {stored.Linear(Precision::kInt8Rows), plain.Linear()}};
  for (const auto& parts : refused) {
    WeightLoader loader = Loader();
    loader.Matrix(parts);
    EXPECT_EQ(loader.status().code(), absl::StatusCode::kUnimplemented) << loader.status();
  }
}

TEST_F(WeightLoaderTest, Fp8IsAskedFor) {
  const Stored plain(StoredDType::kF32, {64, 256}, 2);
  LoadOptions options = options_;
  options.quantize = ParseIntegerFormat("fp8")->value();
  WeightLoader loader(ops_.get(), options, 0, nullptr);
  EXPECT_EQ(loader.Matrix({plain.Linear()})->precision(), Precision::kFp8Groups);
  EXPECT_EQ(loader.HeadMatrix(plain.Linear())->precision(), Precision::kF32);
  EXPECT_EQ(loader.ExactMatrix({plain.Linear()})->precision(), Precision::kF32);
  EXPECT_TRUE(loader.status().ok()) << loader.status();
}

TEST_F(WeightLoaderTest, TheHeadKeepsItsActivations) {
  const Stored plain(StoredDType::kF32, {3, 256}, 2);
  LoadOptions options = options_;
  options.quantize = IntegerFormat{.bits = 4, .group = 64, .activations = true};
  WeightLoader loader(ops_.get(), options, 0, nullptr);
  EXPECT_EQ(loader.Matrix({plain.Linear()})->precision(), Precision::kInt8Groups);
  EXPECT_EQ(loader.HeadMatrix(plain.Linear())->precision(), Precision::kF32);
  EXPECT_EQ(loader.ExactMatrix({plain.Linear()})->precision(), Precision::kF32);
  // Integers stay as they are stored.
  const StoredBytes stored(3, 24, 1);
  const auto kept = loader.Matrix({stored.Linear(std::nullopt)});
  EXPECT_EQ(kept->precision(), Precision::kInt8Groups);
  EXPECT_EQ(kept->bytes(), 3 * (24 + 4));
  EXPECT_EQ(loader.Matrix({stored.Linear(Precision::kInt8Rows)})->precision(),
            Precision::kInt8Rows);
  EXPECT_TRUE(loader.status().ok()) << loader.status();
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
