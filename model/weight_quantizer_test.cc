// Integers found for weights: to the nearest, calibrated, and written as a checkpoint.
#include "model/weight_quantizer.h"

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "model/calibrated_quantizer.h"
#include "model/checkpoint_writer.h"

namespace troupe {
namespace {

// A matrix of f32 in memory of its own.
class Values {
 public:
  Values(int64_t rows, int64_t cols, uint32_t seed) : shape_{rows, cols} {
    std::mt19937 engine(seed);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < rows * cols; ++i) values_.push_back(normal(engine));
  }
  MatrixView view() const {
    return MatrixView::Of({.name = "w",
                           .dtype = StoredDType::kF32,
                           .shape = shape_,
                           .bytes = std::as_bytes(std::span(values_))});
  }
  std::vector<float>& values() { return values_; }

 private:
  std::vector<int64_t> shape_;
  std::vector<float> values_;
};

double WeightError(const CodedWeights& coded, const std::vector<float>& values) {
  double sum = 0;
  for (int64_t r = 0; r < coded.rows; ++r) {
    for (int64_t c = 0; c < coded.cols; ++c) {
      sum += std::pow(DecodeElement(coded.view(), r, c) - values[r * coded.cols + c], 2);
    }
  }
  return sum / static_cast<double>(values.size());
}

TEST(WeightQuantizerTest, NamesOfFormats) {
  for (const std::string& name : IntegerFormatNames()) {
    const auto format = ParseIntegerFormat(name);
    ASSERT_TRUE(format.ok()) << format.status();
    EXPECT_EQ(NameOf(*format), name);
  }
  EXPECT_EQ(ParseIntegerFormat("w4a8-g64")->value(), (IntegerFormat{4, 64, true}));
  EXPECT_EQ(ParseIntegerFormat("w8a8")->value(), (IntegerFormat{8, 128, true}));
  EXPECT_EQ(
      ParseIntegerFormat("int3").status().message(),
      "quantize: found 'int3', wanted one of none, int8, int4-g32, int4-g64, int4-g128, w8a8, "
      "w4a8-g32, w4a8-g64, w4a8-g128, fp8");
}

// A grid of 2^bits levels over a unit normal's range of about +-3.
TEST(WeightQuantizerTest, ErrorsAreWhatAGridAllows) {
  Values values(64, 256, std::random_device{}());
  const double eight = WeightError(QuantizeMatrix(values.view(), {8, 128}, 2), values.values());
  const double g32 = WeightError(QuantizeMatrix(values.view(), {4, 32}, 2), values.values());
  const double g128 = WeightError(QuantizeMatrix(values.view(), {4, 128}, 2), values.values());
  EXPECT_LT(eight, 8e-5);
  EXPECT_LT(g32, 8e-3);
  EXPECT_LT(g128, 1.3e-2);
  EXPECT_LT(g32, g128);
}

TEST(WeightQuantizerTest, WhatTheGridHoldsStaysExact) {
  Values values(8, 64, 1);
  for (size_t i = 0; i < values.values().size(); ++i) {
    values.values()[i] = 0.25F * (static_cast<float>(i * 7 % 16) - 8.0F);
  }
  EXPECT_EQ(WeightError(QuantizeMatrix(values.view(), {4, 32}, 1), values.values()), 0);
  std::fill(values.values().begin(), values.values().end(), 0.0F);
  EXPECT_EQ(WeightError(QuantizeMatrix(values.view(), {4, 32}, 1), values.values()), 0);
}

// Numbers of 4 digits: errors of up to 2^-4 of a number, evenly spread, but for small ones.
TEST(WeightQuantizerTest, Fp8HasBlocksOfItsOwn) {
  Values values(200, 300, std::random_device{}());
  const IntegerFormat format = ParseIntegerFormat("fp8")->value();
  const CodedWeights coded = QuantizeMatrix(values.view(), format, 2);
  EXPECT_TRUE(SuitsFp8Products(coded.view()));
  EXPECT_LT(WeightError(coded, values.values()), 2e-3);
  for (int64_t row = 0; row < 200; ++row) {
    for (int64_t block = 0; block < 3; ++block) {
      float largest = 0.0F;
      for (int64_t r = row / 128 * 128; r < std::min<int64_t>(row / 128 * 128 + 128, 200); ++r) {
        for (int64_t c = block * 128; c < std::min<int64_t>(block * 128 + 128, 300); ++c) {
          largest = std::max(largest, std::fabs(values.values()[r * 300 + c]));
        }
      }
      EXPECT_EQ(coded.scales[row * 3 + block], largest / 448.0F) << row << " " << block;
    }
  }
  const CodedWeights one = QuantizeMatrix(values.view(), format, 1);
  EXPECT_EQ(one.codes, coded.codes);
}

TEST(WeightQuantizerTest, ThreadsDoNotMatter) {
  Values values(100, 96, 5);
  const CodedWeights one = QuantizeMatrix(values.view(), {4, 64}, 1);
  const CodedWeights three = QuantizeMatrix(values.view(), {4, 64}, 3);
  EXPECT_EQ(one.codes, three.codes);
  EXPECT_EQ(one.scales, three.scales);
}

// Inputs of few directions, as activations are: what matters is the error of products.
TEST(CalibratedQuantizerTest, ProductsStayCloserThanToTheNearest) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  constexpr int64_t kRows = 48;
  constexpr int64_t kCols = 128;
  constexpr int64_t kTokens = 600;
  constexpr int64_t kDirections = 24;
  Values weights(kRows, kCols, seed);
  Values directions(kDirections, kCols, seed + 1);
  Values mix(kTokens, kDirections, seed + 2);
  Values noise(kTokens, kCols, seed + 3);
  std::vector<float> x(kTokens * kCols);
  std::vector<float> products(kCols * kCols);
  for (int64_t t = 0; t < kTokens; ++t) {
    float* row = x.data() + t * kCols;
    for (int64_t c = 0; c < kCols; ++c) {
      row[c] = 0.1F * noise.values()[t * kCols + c];
      for (int64_t d = 0; d < kDirections; ++d) {
        row[c] += mix.values()[t * kDirections + d] * directions.values()[d * kCols + c];
      }
    }
    for (int64_t i = 0; i < kCols; ++i) {
      for (int64_t j = 0; j <= i; ++j) products[i * kCols + j] += row[i] * row[j];
    }
  }
  const auto product_error = [&](const CodedWeights& coded) {
    double sum = 0;
    for (int64_t r = 0; r < kRows; ++r) {
      std::vector<double> off(kCols);
      for (int64_t c = 0; c < kCols; ++c) {
        off[c] = DecodeElement(coded.view(), r, c) - weights.values()[r * kCols + c];
      }
      for (int64_t t = 0; t < kTokens; ++t) {
        double product = 0;
        for (int64_t c = 0; c < kCols; ++c) product += off[c] * x[t * kCols + c];
        sum += product * product;
      }
    }
    return sum;
  };
  const IntegerFormat format{4, 64};
  const double nearest = product_error(QuantizeMatrix(weights.view(), format, 1));
  const double calibrated = product_error(QuantizeCalibrated(weights.view(), format, products, 2));
  EXPECT_LT(calibrated, 0.5 * nearest);
}

TEST(CheckpointWriterTest, WhatIsWrittenLoadsWithTheSameValues) {
  const std::string source = std::string(std::getenv("TROUPE_SOURCE_DIR")) + "/models/abacus";
  const auto checkpoint = Checkpoint::Open(source);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const std::string folder = testing::TempDir() + "/quantized";
  std::filesystem::remove_all(folder);
  std::map<std::string, CodedWeights> quantized;
  for (const char* module : {"self_attn.q_proj", "mlp.down_proj"}) {
    const std::string name = std::string("model.layers.0.") + module + ".weight";
    const TensorView* tensor = checkpoint->files().Find(name);
    ASSERT_NE(tensor, nullptr) << name;
    quantized.emplace(name, QuantizeMatrix(MatrixView::Of(*tensor), {4, 64}, 2));
  }
  const MatrixView head = MatrixView::Of(*checkpoint->files().Find("lm_head.weight"));
  quantized.emplace("lm_head.weight", QuantizeMatrix(head, {8, 128}, 2));
  ASSERT_TRUE(WriteQuantizedCheckpoint(*checkpoint, {4, 64}, quantized, folder).ok());
  const auto read = Checkpoint::Open(folder);
  ASSERT_TRUE(read.ok()) << read.status();
  const MatrixView& matrix = read->weights().layers[0].attention.q_proj.weight;
  const auto coded = ReadCoded(matrix);
  ASSERT_TRUE(coded.has_value());
  const CodedWeights& want = quantized.at("model.layers.0.self_attn.q_proj.weight");
  EXPECT_EQ(coded->codes, want.codes);
  EXPECT_EQ(coded->scales, want.scales);
  EXPECT_EQ(coded->group, 64);
  const auto read_head = ReadCoded(read->weights().lm_head.weight);
  ASSERT_TRUE(read_head.has_value());
  EXPECT_EQ(read_head->codes, quantized.at("lm_head.weight").codes);
  EXPECT_NE(read->weights().layers[1].attention.q_proj.weight.Contiguous(), nullptr);
  EXPECT_TRUE(std::filesystem::exists(folder + "/tokenizer.json"));
  // Not over what is there.
  EXPECT_EQ(WriteQuantizedCheckpoint(*checkpoint, {4, 64}, quantized, folder).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace troupe
