#include "kernels/mla_attention/mla_form.h"

#include <gtest/gtest.h>

namespace troupe {
namespace {

constexpr MlaDims kV2Lite = {
    .heads = 16, .nope_dim = 128, .rope_dim = 64, .value_dim = 128, .latent_dim = 512};

TEST(MlaFormTest, CountsAreThoseOfTheFormulas) {
  const MlaDims dims = {.heads = 3, .nope_dim = 4, .rope_dim = 2, .value_dim = 5, .latent_dim = 8};
  // Tokens 8 and 9 see 9 and 10 entries.
  const MlaWork absorbed = CountMlaWork(MlaForm::kAbsorbed, 2, 10, dims);
  EXPECT_EQ(absorbed.flops, 2 * 3 * (2 * 8 * 4 + 19 * (8 + 2) + 19 * 8 + 2 * 5 * 8));
  const MlaWork expanded = CountMlaWork(MlaForm::kExpanded, 2, 10, dims);
  EXPECT_EQ(expanded.flops, 2 * 3 * (10 * 8 * (4 + 5) + 19 * (4 + 2) + 19 * 5));
  // Written and read once, 4 bytes each.
  EXPECT_EQ(absorbed.bytes, 2 * 4 * 3 * 2 * (8 + 2 + 8));
  EXPECT_EQ(expanded.bytes, 2 * 4 * 3 * 10 * (4 + 2 + 5));
}

TEST(MlaFormTest, DecodeIsAbsorbedAndPromptsAreExpanded) {
  for (const int64_t context : {2, 10, 64, 1000, 100000}) {
    EXPECT_EQ(ChooseMlaForm(1, context, kV2Lite), MlaForm::kAbsorbed) << context;
    EXPECT_EQ(ChooseMlaForm(context, context, kV2Lite), MlaForm::kExpanded) << context;
  }
  EXPECT_EQ(ChooseMlaForm(512, 8192, kV2Lite), MlaForm::kExpanded);
  EXPECT_EQ(ChooseMlaForm(8, 8192, kV2Lite), MlaForm::kAbsorbed);
}

// With more tokens of the same context in a step the choice changes once.
TEST(MlaFormTest, OneCrossingForEachContext) {
  for (const int64_t context : {16, 100, 1024, 4096, 65536}) {
    bool expanded = false;
    for (int64_t tokens = 1; tokens <= context && tokens <= 1024; ++tokens) {
      const bool now = ChooseMlaForm(tokens, context, kV2Lite) == MlaForm::kExpanded;
      EXPECT_TRUE(now || !expanded) << tokens << " of " << context;
      expanded = now;
    }
    EXPECT_TRUE(expanded) << context;
  }
}

TEST(MlaFormTest, HeadsAloneDoNotMoveTheCrossing) {
  MlaDims v3 = kV2Lite;
  v3.heads = 128;
  for (const int64_t tokens : {1, 8, 64, 100, 150, 200, 400}) {
    EXPECT_EQ(ChooseMlaForm(tokens, 4096, v3), ChooseMlaForm(tokens, 4096, kV2Lite)) << tokens;
  }
}

}  // namespace
}  // namespace troupe
