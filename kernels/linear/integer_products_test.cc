// Products of codes with x rounded to integers, against numbers that each test works out by itself:
// what x is rounded to, and that no sum on the way loses bits.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/linear/coded_matrix.h"
#include "kernels/ops.h"

namespace troupe {
namespace {

// The fast operations of each instruction set, and the reference.
std::vector<std::pair<std::string, std::unique_ptr<Ops>>> AllOps() {
  std::vector<std::pair<std::string, std::unique_ptr<Ops>>> all;
  all.emplace_back("reference", MakeReferenceOps());
  for (int i = 0; i <= static_cast<int>(*DetectCpuIsa()); ++i) {
    all.emplace_back(CpuIsaName(CpuIsa(i)), MakeCpuOps({.threads = 1, .isa = CpuIsa(i)}));
  }
  return all;
}

// One row of integer codes, and a product with rows of x.
struct OneOutput {
  CodeFormat format = CodeFormat::kInt8;
  int64_t group = 64;
  std::vector<uint8_t> codes = {};  // one a byte, whatever the format
  std::vector<float> scales = {};
  std::vector<uint8_t> zeros = {};  // empty: the middle

  float Times(Ops& ops, std::vector<float> x, Precision precision) const {
    const int bits = BitsOf(format);
    std::vector<std::byte> packed((codes.size() * bits + 7) / 8);
    for (size_t i = 0; i < codes.size(); ++i) {
      packed[i * bits / 8] |= static_cast<std::byte>(codes[i] << (bits == 4 ? i % 2 * 4 : 0));
    }
    const auto inputs = static_cast<int64_t>(codes.size());
    const CodedMatrix view = {.format = format,
                              .rows = 1,
                              .cols = inputs,
                              .codes = packed.data(),
                              .group = group,
                              .scales = scales.data(),
                              .zeros = zeros.empty() ? nullptr : zeros.data()};
    const auto w = ops.PackCoded({view}, precision);
    float out = 0.0F;
    ops.Linear({.x = Tensor{x.data(), DType::kF32, 1, inputs, inputs},
                .w = w.get(),
                .out = Tensor{&out, DType::kF32, 1, 1, 1}});
    ops.Synchronize();
    return out;
  }
};

TEST(IntegerProductsTest, RoundsXToTheNearest127thOfTheLargest) {
  // 254 is the largest, so that an integer stands for 2: 3 and 5 lie in the middle and go to the
  // even ones, 2 and 2 (of 1.5 and 2.5), 2.9 to 1, -7.2 to -4.
  const std::vector<float> x = {254, 3, 5, 2.9F, -7.2F, 0, 0, 0};
  const int64_t want = 127 * 1 + 2 * 10 + 2 * 100 + 1 * 5 + -4 * 50;
  OneOutput one{.group = 8, .scales = {0.25F}};
  for (int number : {1, 10, 100, 5, 50, 127, -128, 33}) {
    one.codes.push_back(static_cast<uint8_t>(number + 128));
  }
  for (const auto& [name, ops] : AllOps()) {
    EXPECT_EQ(one.Times(*ops, x, Precision::kInt8Groups), 0.25F * 2 * want) << name;
    EXPECT_EQ(one.Times(*ops, x, Precision::kInt8Rows), 0.25F * 2 * want) << name;
  }
}

TEST(IntegerProductsTest, GroupsHaveScalesOfTheirOwnAndRowsOne) {
  OneOutput one{.format = CodeFormat::kInt4, .group = 8, .scales = {1.0F, 4.0F}};
  std::vector<float> x(16);
  for (int i = 0; i < 16; ++i) {
    one.codes.push_back(static_cast<uint8_t>(8 + (i == 1 ? 3 : i == 9 ? 5 : 0)));
    x[i] = i < 8 ? 127.0F : 0.5F;
  }
  x[8] = 12.7F;  // 0.5 is 5 of its group's integers, and half of one of the row's: to the even one
  for (const auto& [name, ops] : AllOps()) {
    EXPECT_NEAR(one.Times(*ops, x, Precision::kInt8Groups), 3 * 127 + 4 * 5 * 0.5, 1e-3) << name;
    EXPECT_EQ(one.Times(*ops, x, Precision::kInt8Rows), 3 * 127) << name;
  }
}

// The largest codes times the largest integers, all of one sign: 16 bits would saturate.
TEST(IntegerProductsTest, ExtremesAreExact) {
  for (const CodeFormat format : {CodeFormat::kInt8, CodeFormat::kInt4}) {
    const int middle = MiddleOf(format);
    for (const int64_t inputs : {64, 1000}) {
      for (const int code : {0, 2 * middle - 1}) {
        for (const float sign : {1.0F, -1.0F}) {
          OneOutput one{.format = format, .group = inputs, .scales = {1.0F}};
          one.codes.assign(static_cast<size_t>(inputs), static_cast<uint8_t>(code));
          const std::vector<float> x(static_cast<size_t>(inputs), 127.0F * sign);
          const float want = static_cast<float>((code - middle) * inputs) * 127.0F * sign;
          for (const auto& [name, ops] : AllOps()) {
            EXPECT_EQ(one.Times(*ops, x, Precision::kInt8Groups), want) << name << " " << code;
          }
        }
      }
    }
  }
}

TEST(IntegerProductsTest, AgreesWithIntegersWorkedOutHere) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  constexpr int64_t kGroup = 32;
  constexpr int64_t kInputs = 328;  // the last group is cut short
  for (const CodeFormat format : {CodeFormat::kInt8, CodeFormat::kInt4}) {
    for (const bool zeros : {false, true}) {
      OneOutput one{.format = format, .group = kGroup};
      std::vector<float> x(kInputs);
      double want = 0.0;
      for (int64_t first = 0; first < kInputs; first += kGroup) {
        const int64_t end = std::min(first + kGroup, kInputs);
        one.scales.push_back(0.01F + std::fabs(normal(engine)));
        const int zero =
            zeros ? static_cast<int>(engine() % (2U * MiddleOf(format))) : MiddleOf(format);
        if (zeros) one.zeros.push_back(static_cast<uint8_t>(zero));
        float range = 0.0F;
        for (int64_t i = first; i < end; ++i) {
          one.codes.push_back(static_cast<uint8_t>(engine() % (2U * MiddleOf(format))));
          x[i] = normal(engine) * (i % 7 == 0 ? 5.0F : 1.0F);
          range = std::max(range, std::fabs(x[i]));
        }
        int64_t sum = 0;
        for (int64_t i = first; i < end; ++i) {
          sum += (one.codes[i] - zero) * std::lrint(x[i] * (127.0F / range));
        }
        want += static_cast<double>(sum) * (range / 127.0F) * one.scales.back();
      }
      for (const auto& [name, ops] : AllOps()) {
        EXPECT_NEAR(one.Times(*ops, x, Precision::kInt8Groups), want,
                    2e-6 * MiddleOf(format) * kInputs)
            << name;
      }
    }
  }
}

TEST(IntegerProductsTest, NothingAndNonsenseStayWhatTheyAre) {
  OneOutput one{.group = 16, .scales = {1.0F, 1.0F}};
  one.codes.assign(32, 200);
  const float infinity = std::numeric_limits<float>::infinity();
  for (const auto& [name, ops] : AllOps()) {
    for (const float tiny : {0.0F, 1e-44F, -1e-36F}) {
      std::vector<float> x(32, tiny);
      EXPECT_EQ(one.Times(*ops, x, Precision::kInt8Groups), 0.0F) << name << " " << tiny;
      x[20] = 127.0F;
      EXPECT_EQ(one.Times(*ops, x, Precision::kInt8Groups), 72.0F * 127.0F) << name << " " << tiny;
    }
    for (const float wrong : {infinity, -infinity, std::nanf("")}) {
      for (const size_t at : {0, 17, 31}) {
        std::vector<float> x(32, 1.0F);
        x[at] = wrong;
        EXPECT_TRUE(std::isnan(one.Times(*ops, x, Precision::kInt8Groups))) << name << " " << wrong;
      }
    }
  }
}

TEST(IntegerProductsTest, SuitsIntegersInGroupsThatCannotOverflow) {
  CodedMatrix matrix{.format = CodeFormat::kInt8, .rows = 1, .cols = 70000, .group = 128};
  EXPECT_TRUE(SuitsIntegerProducts(matrix));
  matrix.group = 1 << 20;
  EXPECT_FALSE(SuitsIntegerProducts(matrix));
  matrix.cols = kMostIntegerInputs;
  EXPECT_TRUE(SuitsIntegerProducts(matrix));
  matrix.format = CodeFormat::kFp8E4M3;
  EXPECT_FALSE(SuitsIntegerProducts(matrix));
}

}  // namespace
}  // namespace troupe
