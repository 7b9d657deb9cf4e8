// Codes on GPUs: how products are cut up, which needs no GPU, and that products have the bits of
// the numbers that the codes stand for.
#include <gtest/gtest.h>

#include <utility>

#include "kernels/element.h"
#include "kernels/linear/coded_layout.h"
#include "kernels/linear/coded_testing.h"
#include "kernels/ops_testing.h"

namespace troupe {
namespace {

constexpr int kMultiprocessors = 132;

TEST(CodedLayoutTest, SegmentsCoverTheInputs) {
  for (const int64_t outputs : {1, 70, 4096, 24576, 151936}) {
    for (const int64_t inputs : {8, 64, 328, 1024, 2120, 4096, 12288, 13000}) {
      const CodedShape shape = {.outputs = outputs, .inputs = inputs, .group = inputs};
      const int segments = SegmentsOf(shape);
      const int64_t each = SegmentInputs(shape, segments);
      EXPECT_GE(segments, 1);
      EXPECT_LE(segments, kMostCodedSegments);
      EXPECT_EQ(each % kCodedInputs, 0);
      EXPECT_LT((segments - 1) * each, inputs) << outputs << " x " << inputs;
      EXPECT_GE(segments * each, inputs) << outputs << " x " << inputs;
    }
  }
}

TEST(CodedLayoutTest, StreamsTakeEveryTileAndFitSharedMemory) {
  for (const int64_t outputs : {1, 70, 4096, 6144, 12288, 24576, 151936}) {
    for (const int64_t inputs : {8, 1024, 4096, 12288}) {
      for (const int64_t rows : {1, 8, 16}) {
        const CodedShape shape = {.outputs = outputs, .inputs = inputs, .group = 64};
        const int segments = SegmentsOf(shape);
        const CodedStreamChoice choice = ChooseCodedStream(shape, segments, rows, kMultiprocessors);
        if (rows == 16 && inputs == 12288) {
          EXPECT_EQ(choice.blocks, 0);
          continue;
        }
        ASSERT_GT(choice.blocks, 0) << outputs << " x " << inputs;
        EXPECT_LE(choice.blocks, kMultiprocessors);
        EXPECT_GE(choice.tiles, 1);
        EXPECT_LE(choice.tiles * segments, kMostCodedWarps);
        EXPECT_LE(choice.shared_bytes, kCodedSharedBytes);
      }
    }
  }
}

TEST(CodedLayoutTest, TakesWhatKernelsCanRead) {
  using enum CodeFormat;
  const CodedShape shape = {.outputs = 64, .inputs = 256, .group = 64};
  EXPECT_TRUE(TakesCodes(shape, kInt4, ScaleFormat::kF32, Precision::kBf16));
  EXPECT_TRUE(TakesCodes(shape, kFp4E2M1, ScaleFormat::kE8M0, Precision::kBf16));
  EXPECT_FALSE(TakesCodes(shape, kInt4, ScaleFormat::kF32, Precision::kF32));
  EXPECT_FALSE(TakesCodes(shape, kF16, ScaleFormat::kF32, Precision::kBf16));
  EXPECT_FALSE(TakesCodes({64, 250, 250}, kInt8, ScaleFormat::kF32, Precision::kBf16));
  EXPECT_FALSE(TakesCodes({64, 256, 16}, kInt4, ScaleFormat::kF32, Precision::kBf16));
  EXPECT_FALSE(TakesCodes({64, 256, 96}, kInt4, ScaleFormat::kF32, Precision::kBf16));
  EXPECT_TRUE(TakesCodes({64, 248, 248}, kInt4, ScaleFormat::kF32, Precision::kBf16));
}

// What the device's products of one segment must equal bit for bit.
std::vector<float> RoundedNumbers(const CodedMatrix& codes) {
  std::vector<float> numbers;
  for (int64_t row = 0; row < codes.rows; ++row) {
    for (int64_t col = 0; col < codes.cols; ++col) {
      numbers.push_back(RoundToBf16(DecodeElement(codes, row, col)));
    }
  }
  return numbers;
}

class CodedDeviceTest : public testing::TestWithParam<CodedFormat> {};

TEST_P(CodedDeviceTest, ProductsAreThoseOfRoundedNumbers) {
  const CodedFormat& format = GetParam();
  int devices = 0;
  for (const Backend& backend : CandidateBackends()) {
    if (!backend.rounds_codes) continue;
    ++devices;
    TestDevice device(backend);
    TestRandom random(std::random_device{}());
    // Those that are no multiple of 16 are not for vendors' products.
    for (const auto& [outputs, inputs] : {std::pair<int64_t, int64_t>{90, 64},
                                          {96, 64},
                                          {90, 72},
                                          {90, 520},
                                          {96, 520},
                                          {128, 960}}) {
      const RandomCodes codes(format, outputs, inputs, random());
      const auto coded = device.ops().PackCoded({codes.view()}, Precision::kBf16);
      const Matrix numbers = {outputs, inputs, RoundedNumbers(codes.view())};
      const auto plain = device.ops().Pack({device.Keep(numbers, DType::kBf16)}, Precision::kBf16);
      for (const int rows : {1, 7, 16, 40, 100}) {
        const Tensor x = device.Put(RandomMatrix(rows, inputs, random));
        const Tensor got = device.Put(RandomMatrix(rows, outputs, random));
        const Tensor want = device.Put(RandomMatrix(rows, outputs, random));
        device.ops().Linear({.x = x, .w = coded.get(), .out = got});
        device.ops().Linear({.x = x, .w = plain.get(), .out = want});
        const std::vector<float> got_values = device.Get(got).values;
        const std::vector<float> want_values = device.Get(want).values;
        // Scales of more digits than bf16 has are taken as a sum of two: a number in 2^8 may round
        // the other way, by 2^-8 of itself: some of one result's, of up to three, times x.
        const bool exact = format.code != CodeFormat::kInt4 ||
                           (format.scale == ScaleFormat::kBf16 && !format.zeros);
        const float tolerance = exact ? 0.0F : 0x1p-8F * 32;
        for (size_t i = 0; i < want_values.size(); ++i) {
          ASSERT_NEAR(got_values[i], want_values[i], tolerance)
              << backend.name << " " << outputs << " x " << inputs << ", " << rows << " rows, "
              << i;
        }
      }
    }
  }
  if (devices == 0) GTEST_SKIP() << "not tested on a GPU: " << CudaMissing();
}

std::vector<CodedFormat> FormatsWithScales() {
  std::vector<CodedFormat> formats = CodedFormats();
  std::erase_if(formats, [](const CodedFormat& format) { return !HasScales(format.code); });
  return formats;
}

INSTANTIATE_TEST_SUITE_P(All, CodedDeviceTest, testing::ValuesIn(FormatsWithScales()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace troupe
