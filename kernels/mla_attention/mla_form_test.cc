#include "kernels/mla_attention/mla_form.h"

#include <gtest/gtest.h>

namespace troupe {
namespace {

constexpr MlaDims kV2Lite = {
    .heads = 16, .nope_dim = 128, .rope_dim = 64, .value_dim = 128, .latent_dim = 512};

// The fewest tokens of a step that are better expanded.
int64_t Crossing(int64_t context, double matrix_speed) {
  int64_t tokens = 1;
  while (tokens <= context &&
         ChooseMlaForm(tokens, context, kV2Lite, matrix_speed) == MlaForm::kAbsorbed) {
    ++tokens;
  }
  return tokens;
}

TEST(MlaFormTest, CountsAreThoseOfTheFormulas) {
  const MlaDims dims = {.heads = 3, .nope_dim = 4, .rope_dim = 2, .value_dim = 5, .latent_dim = 8};
  // Tokens 8 and 9 see 9 and 10 entries.
  const MlaWork absorbed = CountMlaWork(MlaForm::kAbsorbed, 2, 10, dims);
  EXPECT_EQ(absorbed.matrix_flops, 2 * 3 * (2 * 8 * 4 + 2 * 8 * 5));
  EXPECT_EQ(absorbed.pair_flops, 2 * 3 * 19 * ((8 + 2) + 8));
  const MlaWork expanded = CountMlaWork(MlaForm::kExpanded, 2, 10, dims);
  EXPECT_EQ(expanded.matrix_flops, 2 * 3 * (10 * 8 * 4 + 10 * 8 * 5));
  EXPECT_EQ(expanded.pair_flops, 2 * 3 * 19 * ((4 + 2) + 5));
  // Written and read once, 4 bytes each.
  EXPECT_EQ(absorbed.bytes, 2 * 4 * 3 * 2 * ((8 + 2) + 8));
  EXPECT_EQ(expanded.bytes, 2 * 4 * 3 * 10 * ((4 + 2) + 5));
}

TEST(MlaFormTest, DecodeIsAbsorbedAndPromptsAreExpanded) {
  for (const double speed : {1.0, 2.0, 8.0}) {
    for (const int64_t context : {64, 1000, 100000}) {
      EXPECT_EQ(ChooseMlaForm(1, context, kV2Lite, speed), MlaForm::kAbsorbed) << context;
      EXPECT_EQ(ChooseMlaForm(context, context, kV2Lite, speed), MlaForm::kExpanded) << context;
    }
    EXPECT_EQ(ChooseMlaForm(512, 8192, kV2Lite, speed), MlaForm::kExpanded);
    EXPECT_EQ(ChooseMlaForm(8, 8192, kV2Lite, speed), MlaForm::kAbsorbed);
  }
}

// With more tokens of the same context in a step the choice changes once.
TEST(MlaFormTest, OneCrossingForEachContext) {
  for (const int64_t context : {16, 100, 1024, 4096}) {
    for (int64_t tokens = Crossing(context, 1); tokens <= context; ++tokens) {
      EXPECT_EQ(ChooseMlaForm(tokens, context, kV2Lite, 1), MlaForm::kExpanded)
          << tokens << " of " << context;
    }
  }
}

// Where the bench saw the forms take the same time, with products as fast as pairs (f32) and twice
// as fast (bf16 with native dot products).
TEST(MlaFormTest, CrossesWhereTheBenchDoes) {
  EXPECT_NEAR(Crossing(512, 1), 133, 25);
  EXPECT_NEAR(Crossing(2048, 1), 165, 25);
  EXPECT_NEAR(Crossing(512, 2), 68, 15);
  EXPECT_NEAR(Crossing(2048, 2), 85, 15);
  EXPECT_NEAR(Crossing(8192, 2), 90, 15);
}

TEST(MlaFormTest, HeadsAloneDoNotMoveTheCrossing) {
  MlaDims v3 = kV2Lite;
  v3.heads = 128;
  for (const int64_t tokens : {1, 8, 64, 100, 150, 200, 400}) {
    EXPECT_EQ(ChooseMlaForm(tokens, 4096, v3, 1), ChooseMlaForm(tokens, 4096, kV2Lite, 1))
        << tokens;
  }
}

}  // namespace
}  // namespace troupe
