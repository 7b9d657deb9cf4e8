// The two forms of latent attention agree.
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "kernels/ops_test_table.h"

namespace troupe {
namespace {

class MlaFormsTest : public testing::TestWithParam<size_t> {};

TEST_P(MlaFormsTest, DifferByRoundingAlone) {
  const testing::ScopedTrace trace(__FILE__, __LINE__,
                                   absl::StrCat("TROUPE_TEST_SEED=", TestSeed()));
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    MlaCase c = {
        .dims = {.heads = 3, .nope_dim = 32, .rope_dim = 16, .value_dim = 24, .latent_dim = 96},
        .dtype = dtype,
        .weight_dtype = DType::kF32};
    std::vector<Outputs> got;
    for (const MlaForm form : {MlaForm::kExpanded, MlaForm::kAbsorbed}) {
      c.forms = {form};
      got.push_back(
          RunOn(Candidates()[GetParam()], Make("", kLong, RunMlaAttention, c), InOneStep(kLong)));
    }
    ExpectNear(got[1][0], got[0][0]);
  }
}

INSTANTIATE_TEST_SUITE_P(All, MlaFormsTest, testing::Range<size_t>(0, Candidates().size()),
                         [](const auto& info) { return Candidates()[info.param].name; });

}  // namespace
}  // namespace troupe
