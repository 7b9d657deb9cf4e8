// Weights as codes: that numbers are what the formats say, and that the fast products agree with
// the reference at odd sizes and do not depend on the batch.
#include "kernels/linear/coded_matrix.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/linear/coded_testing.h"
#include "kernels/ops.h"

namespace troupe {
namespace {

TEST(CodedMatrixTest, E4M3IsSignExponentMantissa) {
  for (int code = 0; code < 256; ++code) {
    const int exponent = code >> 3 & 15;
    const double mantissa = code & 7;
    const double magnitude =
        exponent == 0 ? mantissa / 8 * std::exp2(-6) : (1 + mantissa / 8) * std::exp2(exponent - 7);
    const float value = FromE4M3(static_cast<uint8_t>(code));
    if ((code & 0x7F) == 0x7F) {
      EXPECT_TRUE(std::isnan(value));
    } else {
      EXPECT_EQ(value, code < 128 ? magnitude : -magnitude) << code;
    }
  }
}

TEST(CodedMatrixTest, E4M3IsTheNearest) {
  for (int code = 0; code < 0x7F; ++code) {
    const float value = FromE4M3(static_cast<uint8_t>(code));
    EXPECT_EQ(ToE4M3(value), code);
    EXPECT_EQ(ToE4M3(-value), code | 0x80);
    if (code == 0x7E) break;
    const float next = FromE4M3(static_cast<uint8_t>(code + 1));
    const float middle = (value + next) / 2;
    EXPECT_EQ(ToE4M3(middle), code + code % 2) << "a tie goes to the even one";
    EXPECT_EQ(ToE4M3(std::nextafter(middle, 0.0F)), code);
    EXPECT_EQ(ToE4M3(std::nextafter(middle, next)), code + 1);
  }
  EXPECT_EQ(ToE4M3(1e30F), 0x7E);
}

TEST(CodedMatrixTest, F16RoundTrips) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = FromF16(static_cast<uint16_t>(bits));
    if (std::isnan(value)) continue;
    EXPECT_EQ(ToF16(value), bits);
  }
  EXPECT_EQ(FromF16(0x3555), 0.333251953125F);
  EXPECT_EQ(ToF16(1.0F + 0x1p-11F), 0x3C00);      // a tie goes to the even one
  EXPECT_EQ(ToF16(1.0F + 3 * 0x1p-11F), 0x3C02);  // so does this
  EXPECT_EQ(ToF16(std::nextafter(65520.0F, 0.0F)), 0x7BFF);
  EXPECT_EQ(ToF16(65520.0F), 0x7C00);
  EXPECT_EQ(ToF16(0x1.8p-25F), 0x0001);
}

std::vector<float> Random(int64_t count, uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(engine);
  return values;
}

std::vector<CpuIsa> Isas() {
  std::vector<CpuIsa> isas;
  for (int i = 0; i <= static_cast<int>(*DetectCpuIsa()); ++i) isas.push_back(CpuIsa(i));
  return isas;
}

using Case = std::tuple<CpuIsa, CodedFormat, Precision>;

class CodedProductTest : public testing::TestWithParam<Case> {
 protected:
  std::unique_ptr<Ops> MakeOps(int threads) const {
    return MakeCpuOps(CpuOpsOptions{.threads = threads, .isa = std::get<0>(GetParam())});
  }
  const CodedFormat& format() const { return std::get<1>(GetParam()); }
  Precision precision() const { return std::get<2>(GetParam()); }

  // What a sum of `inputs` products may be off: numbers times scales are of size 2 at most, mostly
  // under 1; with zeros, sums of twice that cancel.
  static double Tolerance(int64_t inputs) { return 3e-5 * std::sqrt(static_cast<double>(inputs)); }

  std::vector<float> Product(Ops& ops, std::vector<CodedMatrix> parts, std::vector<float>& x,
                             int64_t rows) const {
    const auto w = ops.PackCoded(parts, precision());
    std::vector<float> out(rows * w->outputs(), 0.5F);
    ops.Linear(
        LinearParams{.x = Tensor{x.data(), DType::kF32, rows, w->inputs(), w->inputs()},
                     .w = w.get(),
                     .out = Tensor{out.data(), DType::kF32, rows, w->outputs(), w->outputs()},
                     .accumulate = true});
    ops.Synchronize();
    return out;
  }
};

TEST_P(CodedProductTest, AgreesWithReferenceAtAwkwardSizes) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  const auto ops = MakeOps(2);
  const auto reference = MakeReferenceOps();
  for (int64_t outputs : {1, 15, 33, 100}) {
    for (int64_t inputs : {2, 32, 70, 128, 200, 392}) {
      const RandomCodes weights(format(), outputs, inputs, seed);
      const RandomCodes more(format(), 7, inputs, seed + 1);
      for (int64_t rows : {1, 2, 5, 12, 13}) {
        std::vector<float> x = Random(rows * inputs, seed);
        const auto got = Product(*ops, {weights.view(), more.view()}, x, rows);
        const auto want = Product(*reference, {weights.view(), more.view()}, x, rows);
        ASSERT_EQ(got.size(), want.size());
        for (size_t i = 0; i < want.size(); ++i) {
          ASSERT_NEAR(got[i], want[i], Tolerance(inputs))
              << outputs << "x" << inputs << ", row " << i / (outputs + 7) << " of " << rows;
        }
      }
    }
  }
}

TEST_P(CodedProductTest, RowsDoNotDependOnTheBatch) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  const int64_t outputs = 200;
  const int64_t inputs = 328;
  const int64_t most_rows = 33;
  const RandomCodes weights(format(), outputs, inputs, seed);
  std::vector<float> x = Random(most_rows * inputs, seed);
  const std::vector<float> want = Product(*MakeOps(1), {weights.view()}, x, most_rows);
  for (int threads : {1, 3}) {
    const auto ops = MakeOps(threads);
    for (int64_t rows : {1, 2, 3, 7, 12, 33}) {
      for (int64_t first : {int64_t{0}, most_rows - rows}) {
        std::vector<float> part(x.begin() + first * inputs, x.begin() + (first + rows) * inputs);
        const std::vector<float> got = Product(*ops, {weights.view()}, part, rows);
        EXPECT_EQ(std::memcmp(got.data(), want.data() + first * outputs, got.size() * 4), 0)
            << rows << " rows from " << first << ", " << threads << " threads";
      }
    }
  }
}

// An output of one input of 1 is that weight itself: exact but for integers, of which 127 stand for
// 1, and their scale.
TEST_P(CodedProductTest, OneInputGivesTheWeight) {
  const int64_t inputs = 160;
  const RandomCodes weights(format(), 40, inputs, 3);
  const auto ops = MakeOps(1);
  for (int64_t k : {0, 1, 2, 3, 4, 5, 6, 7, 33, 127, 128, 159}) {
    std::vector<float> x(inputs, 0.0F);
    x[k] = 1.0F;
    const auto w = ops->PackCoded({weights.view()}, precision());
    std::vector<float> out(40);
    ops->Linear(LinearParams{.x = Tensor{x.data(), DType::kF32, 1, inputs, inputs},
                             .w = w.get(),
                             .out = Tensor{out.data(), DType::kF32, 1, 40, 40}});
    for (int64_t r = 0; r < 40; ++r) {
      const float want = DecodeElement(weights.view(), r, k);
      if (RoundsToIntegers(precision())) {
        EXPECT_NEAR(out[r], want, 4e-7 * std::fabs(want));
      } else {
        EXPECT_EQ(out[r], want);
      }
    }
  }
}

// What a device without kernels for codes does.
TEST(CodedMatrixTest, DefaultPackingDecodes) {
  const RandomCodes weights({"", CodeFormat::kInt4, 32, ScaleFormat::kF16, true}, 9, 64, 5);
  const auto ops = MakeCpuOps(CpuOpsOptions{.threads = 1});
  const auto w = ops->Ops::PackCoded({weights.view()}, Precision::kF32);
  std::vector<float> x(64, 0.0F);
  x[41] = 1.0F;
  std::vector<float> out(9);
  ops->Linear(LinearParams{.x = Tensor{x.data(), DType::kF32, 1, 64, 64},
                           .w = w.get(),
                           .out = Tensor{out.data(), DType::kF32, 1, 9, 9}});
  for (int64_t r = 0; r < 9; ++r) EXPECT_EQ(out[r], DecodeElement(weights.view(), r, 41));
}

TEST(CodedMatrixTest, PacksTogetherOnlyWithTheSameGroups) {
  CodedMatrix a{.format = CodeFormat::kInt4, .rows = 2, .cols = 64, .group = 32};
  CodedMatrix b = a;
  EXPECT_TRUE(PackTogether(a, b));
  b.group = 64;
  EXPECT_FALSE(PackTogether(a, b));
  a.group = 128;  // both one group
  EXPECT_TRUE(PackTogether(a, b));
  a.group = b.group = 12;
  EXPECT_FALSE(PackTogether(a, b));
  b = a;
  b.format = CodeFormat::kInt8;
  EXPECT_FALSE(PackTogether(a, b));
}

std::string NameOf(const testing::TestParamInfo<Case>& info) {
  return std::string(CpuIsaName(std::get<0>(info.param))) + "_" + std::get<1>(info.param).name +
         "_" + PrecisionName(std::get<2>(info.param));
}

INSTANTIATE_TEST_SUITE_P(All, CodedProductTest,
                         testing::Combine(testing::ValuesIn(Isas()),
                                          testing::ValuesIn(CodedFormats()),
                                          testing::Values(Precision::kF32, Precision::kBf16)),
                         NameOf);

INSTANTIATE_TEST_SUITE_P(
    Integers, CodedProductTest,
    testing::Combine(testing::ValuesIn(Isas()), testing::ValuesIn(IntegerFormats()),
                     testing::Values(Precision::kInt8Groups, Precision::kInt8Rows)),
    NameOf);

}  // namespace
}  // namespace troupe
