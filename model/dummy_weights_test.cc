#include "model/dummy_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/dummy_tokenizer.h"
#include "model/matrix_view.h"

namespace troupe {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

std::vector<TensorShape> Shapes() {
  return {{"a.weight", {300, 70}}, {"a.bias", {300}}, {"norm.weight", {70}}, {"b", {5, 3}}};
}

SafetensorsCheckpoint Make(const DummyOptions& options) {
  auto tensors = MakeDummyTensors("x", Shapes(), options);
  EXPECT_TRUE(tensors.ok()) << tensors.status();
  return *std::move(tensors);
}

std::vector<float> Values(const SafetensorsCheckpoint& tensors, const std::string& name) {
  const TensorView* view = tensors.Find(name);
  EXPECT_NE(view, nullptr) << name;
  return view == nullptr ? std::vector<float>() : ReadAsF32(*view);
}

class DummyWeightsTest : public ::testing::TestWithParam<StoredDType> {};

TEST_P(DummyWeightsTest, MatricesAreRandomNormsOneAndBiasesZero) {
  const SafetensorsCheckpoint tensors = Make({.dtype = GetParam(), .threads = 1});
  EXPECT_EQ(tensors.tensors().size(), 4);
  EXPECT_EQ(tensors.Find("a.weight")->dtype, GetParam());
  EXPECT_THAT(tensors.Find("a.weight")->shape, ElementsAre(300, 70));
  EXPECT_THAT(Values(tensors, "norm.weight"), Each(1.0F));
  EXPECT_THAT(Values(tensors, "a.bias"), Each(0.0F));
  const std::vector<float> values = Values(tensors, "a.weight");
  double sum = 0;
  double squares = 0;
  for (const float value : values) {
    ASSERT_GE(std::abs(value), 0x1p-7F);
    ASSERT_LT(std::abs(value), 0x1p-5F);
    sum += value;
    squares += value * value;
  }
  const auto count = static_cast<double>(values.size());
  EXPECT_NEAR(std::sqrt(squares / count), 0.0188, 0.0005);
  EXPECT_NEAR(sum / count, 0, 4 * 0.0188 / std::sqrt(count));
}

INSTANTIATE_TEST_SUITE_P(DTypes, DummyWeightsTest,
                         ::testing::Values(StoredDType::kBF16, StoredDType::kF16,
                                           StoredDType::kF32));

TEST(DummyWeightsTest, TheSeedAloneDecides) {
  const std::vector<float> one = Values(Make({.seed = 7, .threads = 1}), "a.weight");
  EXPECT_EQ(one, Values(Make({.seed = 7, .threads = 3}), "a.weight"));
  EXPECT_NE(one, Values(Make({.seed = 8, .threads = 1}), "a.weight"));
}

// More than what is distinct: addresses differ, and the values come again.
TEST(DummyWeightsTest, LargeShapesTakeLittleMemory) {
  constexpr int64_t kDistinctRows = 512;
  constexpr int64_t kRowBytes = 2 * 1024;
  const int64_t rows = 3 * kDistinctRows;
  const auto tensors = MakeDummyTensors(
      "x", {{"big", {rows, 1024}}},
      {.threads = 2, .distinct_bytes = static_cast<uint64_t>(kDistinctRows * kRowBytes)});
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  const MatrixView matrix = MatrixView::Of(*tensors->Find("big"));
  const auto row = [&](int64_t r) {
    std::vector<float> values(1024);
    matrix.ReadRows(r, 1, absl::MakeSpan(values));
    return values;
  };
  EXPECT_EQ(row(rows - 1), row(rows - 1 - kDistinctRows));
  EXPECT_NE(row(rows - 1), row(rows - 2));
}

TEST(DummyCheckpointTest, OpensAShapeFromItsConfigAlone) {
  namespace fs = std::filesystem;
  const char* root = std::getenv("TROUPE_SOURCE_DIR");
  const fs::path folder = fs::path(::testing::TempDir()) / "dummy_checkpoint";
  fs::remove_all(folder);
  fs::create_directories(folder);
  fs::copy(fs::path(root == nullptr ? "." : root) / "models/abacus/config.json", folder);
  const auto dummy = Checkpoint::OpenDummy(folder.string(), {.dtype = StoredDType::kF32});
  ASSERT_TRUE(dummy.ok()) << dummy.status();
  EXPECT_EQ(dummy->parameters().total, 11'190'512);
  EXPECT_EQ(dummy->parameters().bytes_by_dtype.at(StoredDType::kF32), 4 * 11'190'512);
  const auto other = Checkpoint::OpenDummy(folder.string(), {.seed = 1});
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_NE(dummy->ComputeIdentity(1)->sha256, other->ComputeIdentity(1)->sha256);
  fs::remove_all(folder);
}

TEST(DummyTokenizerTest, SpellsNumbers) {
  const auto tokenizer = MakeDummyTokenizer(1000);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocab_size(), 1000U);
  const auto ids = (*tokenizer)->Encode("t12 t999");
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_THAT(*ids, ElementsAre(12U, 999U));
  EXPECT_EQ(*(*tokenizer)->Decode(*ids, true), "t12 t999");
}

}  // namespace
}  // namespace troupe
