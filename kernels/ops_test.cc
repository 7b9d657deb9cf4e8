// Every case of the table on every backend: against the reference, and against itself with the same
// tokens cut into other steps.
//
// Inputs are new in each run; TROUPE_TEST_SEED repeats one (each failure names its seed).
#include "kernels/ops.h"

#include <gtest/gtest.h>

#include <bit>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "kernels/ops_test_table.h"

namespace troupe {
namespace {

const std::vector<Case>& Cases() {
  static const auto& cases = *new std::vector<Case>(Joined({DenseCases(), PagedCases()}));
  return cases;
}

const Outputs& Expected(const Case& c) {
  static auto& known = *new std::map<std::string, Outputs>();
  const auto found = known.find(c.name);
  if (found != known.end()) return found->second;
  return known[c.name] = RunOn(ReferenceBackend(), c, InOneStep(c.sequences));
}

void ExpectSameBits(const Outputs& got, const Outputs& want, const std::string& what) {
  for (size_t o = 0; o < want.size(); ++o) {
    ASSERT_EQ(got[o].values.size(), want[o].values.size());
    for (size_t i = 0; i < want[o].values.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(got[o].values[i]),
                std::bit_cast<uint32_t>(want[o].values[i]))
          << want[o].name << "[" << i << "] " << what << ": " << got[o].values[i]
          << ", all at once " << want[o].values[i];
    }
  }
}

class OpsTest : public testing::TestWithParam<std::tuple<size_t, size_t>> {
 protected:
  const Backend& backend() const { return Candidates()[std::get<0>(GetParam())]; }
  bool Skips() const {
    return test_case().integers && !TestDevice(backend()).ops().HasIntegerProducts();
  }
  const Case& test_case() const { return Cases()[std::get<1>(GetParam())]; }

  testing::ScopedTrace trace_{__FILE__, __LINE__, absl::StrCat("TROUPE_TEST_SEED=", TestSeed())};
};

TEST_P(OpsTest, AgreesWithTheReference) {
  if (Skips()) GTEST_SKIP() << "this device has no integer products";
  const Outputs& want = Expected(test_case());
  const Outputs got = RunOn(backend(), test_case(), InOneStep(test_case().sequences));
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) ExpectNear(got[i], want[i]);
}

TEST_P(OpsTest, TokensDoNotDependOnTheirSteps) {
  if (Skips()) GTEST_SKIP() << "this device has no integer products";
  const Case& c = test_case();
  TestRandom random(TestSeed());
  const Outputs want = RunOn(backend(), c, InOneStep(c.sequences));
  ExpectSameBits(RunOn(backend(), c, EachAlone(c.sequences)), want, "each sequence alone");
  const Outputs by_token = RunOn(backend(), c, TokenByToken(c.sequences));
  const Outputs cut = RunOn(backend(), c, RandomlyCut(c.sequences, random));
  if (c.cuts_round) {
    for (size_t i = 0; i < want.size(); ++i) ExpectNear(by_token[i], want[i]);
    for (size_t i = 0; i < want.size(); ++i) ExpectNear(cut[i], want[i]);
  } else {
    ExpectSameBits(by_token, want, "token by token");
    ExpectSameBits(cut, want, "cut at random");
  }
}

INSTANTIATE_TEST_SUITE_P(All, OpsTest,
                         testing::Combine(testing::Range<size_t>(0, Candidates().size()),
                                          testing::Range<size_t>(0, Cases().size())),
                         [](const auto& info) {
                           return absl::StrReplaceAll(
                               absl::StrCat(Candidates()[std::get<0>(info.param)].name, "_",
                                            Cases()[std::get<1>(info.param)].name),
                               {{"/", "_"}, {" ", "_"}});
                         });

TEST(CudaTest, IsAmongTheBackends) {
  const absl::Status missing = CudaMissing();
  if (!missing.ok()) GTEST_SKIP() << "not tested on a GPU: " << missing;
}

}  // namespace
}  // namespace troupe
