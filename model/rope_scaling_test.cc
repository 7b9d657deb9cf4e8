#include "model/rope_scaling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

namespace troupe {
namespace {

// The wanted frequencies and amplitudes are what ROPE_INIT_FUNCTIONS of transformers 5.17
// (modeling_rope_utils.py) answer in f32 for the parameters of each test.
void ExpectFrequencies(const RopeParameters& parameters, int head_dim,
                       const std::vector<float>& wanted, float amplitude = 1.0F) {
  const RopeDescription rope = DescribeRope(RopeKind::kHalfSplit, parameters, head_dim);
  EXPECT_EQ(rope.kind, RopeKind::kHalfSplit);
  EXPECT_EQ(rope.rotated_dims, head_dim);
  EXPECT_FLOAT_EQ(rope.amplitude, amplitude);
  ASSERT_EQ(rope.inverse_frequency.size(), wanted.size());
  for (size_t j = 0; j < wanted.size(); ++j) {
    EXPECT_NEAR(rope.inverse_frequency[j], wanted[j], 1e-6F * wanted[j]) << j;
  }
}

TEST(RopeScalingTest, Linear) {
  ExpectFrequencies(
      {.theta = 1e4, .scaling = LinearRopeScaling{4.0}}, 12,
      {0.25F, 0.0538608693F, 0.011603971F, 0.00249999994F, 0.000538608583F, 0.000116039751F});
}

TEST(RopeScalingTest, Llama3) {
  ExpectFrequencies(
      {.theta = 5e5, .scaling = Llama3RopeScaling{.factor = 8.0, .original_context_tokens = 8192}},
      32,
      {1.0F, 0.440366626F, 0.193922758F, 0.0853971019F, 0.0376060307F, 0.0165604409F,
       0.00729266508F, 0.00321144611F, 0.000524846022F, 7.78465546e-05F, 3.42810235e-05F,
       1.50962178e-05F, 6.64787058e-06F, 2.92749974e-06F, 1.28917316e-06F, 5.6770881e-07F});
}

TEST(RopeScalingTest, YarnWithARampBetweenPairs) {
  ExpectFrequencies(
      {.theta = 1.5e5,
       .scaling =
           YarnRopeScaling{.factor = 32.0, .original_context_tokens = 4096, .truncate = false}},
      64,
      {1.0F,
       0.689044297F,
       0.47478205F,
       0.327145845F,
       0.225418001F,
       0.155322984F,
       0.107024424F,
       0.0737445652F,
       0.05081328F,
       0.0317056961F,
       0.0193350017F,
       0.0115920492F,
       0.00679495931F,
       0.00386035908F,
       0.00209379266F,
       0.00105260219F,
       0.000456483918F,
       0.000129318694F,
       3.83088118e-05F,
       2.63964721e-05F,
       1.8188337e-05F,
       1.25325696e-05F,
       8.63549576e-06F,
       5.95023948e-06F,
       4.09997847e-06F,
       2.82506676e-06F,
       1.94659629e-06F,
       1.34129107e-06F,
       9.24208962e-07F,
       6.36820914e-07F,
       4.38797855e-07F,
       3.0235114e-07F},
      1.34657359F);
}

TEST(RopeScalingTest, YarnWithTwoTemperatures) {
  const RopeParameters parameters{
      .theta = 1e4,
      .scaling = YarnRopeScaling{
          .factor = 40.0, .original_context_tokens = 4096, .mscale = 1.0, .mscale_all_dim = 0.707}};
  ExpectFrequencies(parameters, 64,
                    {1.0F,
                     0.749894202F,
                     0.562341332F,
                     0.421696514F,
                     0.316227764F,
                     0.237137392F,
                     0.177827939F,
                     0.133352146F,
                     0.100000001F,
                     0.0749894157F,
                     0.0562341288F,
                     0.0390069261F,
                     0.0268793609F,
                     0.0183781441F,
                     0.012447956F,
                     0.0083345091F,
                     0.00550000044F,
                     0.00356199732F,
                     0.00224936521F,
                     0.00137051346F,
                     0.000790569407F,
                     0.000414990413F,
                     0.00017782794F,
                     3.3338034e-05F,
                     2.49999994e-05F,
                     1.87473543e-05F,
                     1.40585325e-05F,
                     1.05424142e-05F,
                     7.90569447e-06F,
                     5.92843435e-06F,
                     4.44569832e-06F,
                     3.33380353e-06F},
                    1.0857264F);
  // The square of yarn_get_mscale(40, 0.707) of transformers' modeling_deepseek_v3.py.
  EXPECT_DOUBLE_EQ(YarnScoreFactor(parameters), 1.5896261651208736);
}

TEST(RopeScalingTest, YarnWithAnAmplitudeOfItsOwn) {
  const RopeParameters parameters{
      .theta = 5e5,
      .scaling = YarnRopeScaling{
          .factor = 8.0, .original_context_tokens = 8192, .attention_factor = 1.25}};
  ExpectFrequencies(parameters, 16,
                    {1.0F, 0.193922758F, 0.0376060307F, 0.00516563747F, 0.000589255593F,
                     3.42810235e-05F, 6.64787058e-06F, 1.28917316e-06F},
                    1.25F);
  EXPECT_EQ(YarnScoreFactor(parameters), 1.0);
}

TEST(RopeScalingTest, YarnWhoseRampBeginsBelowTheFirstPair) {
  ExpectFrequencies(
      {.theta = 1e4, .scaling = YarnRopeScaling{.factor = 4.0, .original_context_tokens = 64}}, 24,
      {1.0F, 0.377129108F, 0.134652168F, 0.043750003F, 0.011603971F, 0.00538608758F, 0.00249999994F,
       0.00116039743F, 0.000538608583F, 0.000250000012F, 0.000116039751F, 5.38608547e-05F},
      1.13862944F);
}

TEST(RopeScalingTest, APartOfAHeadIsRoundedDown) {
  const RopeDescription rope =
      DescribeRope(RopeKind::kInterleaved, {.theta = 1e4, .rotated_part = 0.55}, 20);
  EXPECT_EQ(rope.rotated_dims, 11);
  EXPECT_EQ(DescribeRope(RopeKind::kInterleaved, {.rotated_part = 0.5}, 32).inverse_frequency,
            RopeFrequencies(1e4, 16));
}

}  // namespace
}  // namespace troupe
