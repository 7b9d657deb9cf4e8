// The bundled model with keys and values in FP8 (docs/adr/0011-kv-in-fp8.md): how far that moves
// logits and answers, and that it stays batch invariant.
#include <algorithm>
#include <cmath>

#include "gtest/gtest.h"
#include "tests/golden/golden_file.h"
#include "worker/testing/runner_harness.h"

namespace troupe {
namespace {

using Logits = RunnerHarness::Logits;

std::unique_ptr<RunnerHarness> MakeHarness(bool fp8_kv) {
  RunnerHarness::Options options;
  options.fp8_kv = fp8_kv;
  options.slots = 2;
  options.max_context_tokens = 2048;
  return std::make_unique<RunnerHarness>(options);
}

// Root mean square of the difference over that of what is wanted.
double RelativeRms(const std::vector<float>& got, const std::vector<float>& want) {
  double off = 0;
  double all = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    off += std::pow(double{got[i]} - want[i], 2);
    all += std::pow(double{want[i]}, 2);
  }
  return std::sqrt(off / all);
}

std::vector<uint32_t> UntilEnd(std::vector<uint32_t> tokens) {
  constexpr uint32_t kEndToken = 2;
  const auto end = std::find(tokens.begin(), tokens.end(), kEndToken);
  if (end != tokens.end()) tokens.erase(end, tokens.end());
  return tokens;
}

constexpr const char* kPrompts[] = {"addsub",     "mul",  "expr",  "linear",    "recursion",
                                    "pythagoras", "word", "lists", "needle_700"};

// A number rounded to e4m3 errs by at most 2^-4 of itself, 2^-4 / sqrt(3) rms = 0.036: keys and
// values of 8 layers, each a part of what its layer adds to the residual. Rounding also carries
// some choices (gates, experts) over an edge, so the median position holds the tolerance, as for
// bf16 (abacus_conformance_test.cc).
TEST(KvFp8Test, LogitsStayNear) {
  const auto full = MakeHarness(/*fp8_kv=*/false);
  const auto fp8 = MakeHarness(/*fp8_kv=*/true);
  std::vector<double> errors;
  for (const char* prompt : kPrompts) {
    const std::vector<uint32_t> tokens = GoldenFile(prompt).Tokens("input_ids");
    const int count = std::min<int>(32, static_cast<int>(tokens.size()));
    const Logits want = full->Feed(0, tokens, 512, count);
    const Logits got = fp8->Feed(0, tokens, 512, count);
    full->Finish(0);
    fp8->Finish(0);
    for (int i = 0; i < count; ++i) errors.push_back(RelativeRms(got[i], want[i]));
  }
  std::nth_element(errors.begin(), errors.begin() + errors.size() / 2, errors.end());
  const double median = errors[errors.size() / 2];
  RecordProperty("median_relative_rms", std::to_string(median));
  EXPECT_LT(median, 0.05);
  EXPECT_GT(median, 1e-4) << "it is another computation";
}

// The answers that the model gives in f32, to the token, for all prompts but one at most.
TEST(KvFp8Test, AnswersAreTheSame) {
  const auto fp8 = MakeHarness(/*fp8_kv=*/true);
  int different = 0;
  for (const char* prompt : kPrompts) {
    const GoldenFile golden(prompt);
    const std::vector<uint32_t> greedy = golden.Tokens("greedy_ids");
    const Logits last = fp8->Feed(0, golden.Tokens("input_ids"), 500);
    const std::vector<uint32_t> got = fp8->Greedy(0, last.back(), static_cast<int>(greedy.size()));
    fp8->Finish(0);
    if (UntilEnd(got) == UntilEnd(greedy)) continue;
    ++different;
    std::cout << prompt << " has another answer\n";
  }
  EXPECT_LE(different, 1);
}

TEST(KvFp8Test, LogitsDoNotDependOnTheSteps) {
  const auto fp8 = MakeHarness(/*fp8_kv=*/true);
  const std::vector<uint32_t> tokens = GoldenFile("needle_700").Tokens("input_ids");
  const Logits want = fp8->Feed(0, tokens, 512);
  fp8->Finish(0);
  for (const int chunk : {61, 256}) {
    EXPECT_EQ(fp8->Feed(1, tokens, chunk), want) << chunk << " tokens a step";
    fp8->Finish(1);
  }
}

}  // namespace
}  // namespace troupe
