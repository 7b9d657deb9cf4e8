// What the common table of operations does not cover: a token's result is the same whatever the
// batch, the threads and the order in which its experts are named.
#include "kernels/moe_experts/moe_experts.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/bf16.h"
#include "kernels/ops.h"

namespace troupe {
namespace {

constexpr int kHidden = 72;
constexpr int kInner = 24;  // gate and up meet inside a panel
constexpr int kExperts = 5;
constexpr int kTopK = 2;

class Model {
 public:
  explicit Model(Ops& ops) {
    std::mt19937 engine(11);
    for (int e = 0; e <= kExperts; ++e) {
      weights_.push_back(ExpertWeights{Matrix(ops, 2 * kInner, kHidden, engine),
                                       Matrix(ops, kHidden, kInner, engine)});
    }
    list_ = ops.ListExperts(absl::MakeConstSpan(weights_).first(kExperts));
  }

  const ExpertList* experts() const { return list_.get(); }
  const ExpertWeights* shared() const { return &weights_[kExperts]; }

 private:
  const PackedMatrix* Matrix(Ops& ops, int64_t rows, int64_t cols, std::mt19937& engine) {
    std::normal_distribution<float> normal(0, 1 / std::sqrt(static_cast<float>(cols)));
    std::vector<Bf16> values(rows * cols);
    for (Bf16& value : values) value = ToBf16(normal(engine));
    const Tensor tensor{values.data(), DType::kBf16, rows, cols, cols};
    matrices_.push_back(ops.Pack({tensor}, Precision::kBf16));
    return matrices_.back().get();
  }

  std::vector<std::unique_ptr<PackedMatrix>> matrices_;
  std::vector<ExpertWeights> weights_;
  std::unique_ptr<ExpertList> list_;
};

struct Tokens {
  std::vector<float> x;
  std::vector<int32_t> chosen;
  std::vector<float> weights;

  int64_t count() const { return static_cast<int64_t>(chosen.size()) / kTopK; }
  Tokens Part(int64_t first, int64_t n) const {
    return Tokens{{x.begin() + first * kHidden, x.begin() + (first + n) * kHidden},
                  {chosen.begin() + first * kTopK, chosen.begin() + (first + n) * kTopK},
                  {weights.begin() + first * kTopK, weights.begin() + (first + n) * kTopK}};
  }
};

// Expert 3 is never chosen, expert 1 by most.
Tokens MakeTokens(int64_t count) {
  std::mt19937 engine(2);
  std::normal_distribution<float> normal;
  Tokens tokens;
  for (int64_t t = 0; t < count; ++t) {
    for (int i = 0; i < kHidden; ++i) tokens.x.push_back(normal(engine));
    const int first = t % 3 == 0 ? 4 : 1;
    tokens.chosen.insert(tokens.chosen.end(), {first, t % 2 == 0 ? 0 : 2});
    tokens.weights.insert(tokens.weights.end(), {0.25f, 0.75f});
  }
  return tokens;
}

std::vector<float> Apply(Ops& ops, Tokens tokens, bool with_shared) {
  const Model model(ops);
  const int64_t count = tokens.count();
  std::vector<float> out(count * kHidden, 0.125f);
  ops.MoeExperts(
      MoeExpertsParams{.x = Tensor{tokens.x.data(), DType::kF32, count, kHidden, kHidden},
                       .experts = model.experts(),
                       .shared = with_shared ? model.shared() : nullptr,
                       .top_k = kTopK,
                       .chosen = tokens.chosen.data(),
                       .weights = tokens.weights.data(),
                       .out = Tensor{out.data(), DType::kF32, count, kHidden, kHidden}});
  ops.Synchronize();
  return out;
}

std::vector<CpuIsa> Isas() {
  std::vector<CpuIsa> isas;
  for (int i = 0; i <= static_cast<int>(*DetectCpuIsa()); ++i) isas.push_back(CpuIsa(i));
  return isas;
}

class MoeExpertsTest : public testing::TestWithParam<CpuIsa> {
 protected:
  std::unique_ptr<Ops> MakeOps(int threads) const {
    return MakeCpuOps(CpuOpsOptions{.threads = threads, .isa = GetParam()});
  }
};

TEST_P(MoeExpertsTest, AgreesWithReference) {
  const auto reference = MakeReferenceOps();
  const auto ops = MakeOps(3);
  for (bool with_shared : {false, true}) {
    for (int64_t count : {1, 2, 40}) {
      const Tokens tokens = MakeTokens(count);
      const std::vector<float> want = Apply(*reference, tokens, with_shared);
      const std::vector<float> got = Apply(*ops, tokens, with_shared);
      // Inner values near a tie of rounding to bf16 may fall on its other side: 2^-8 of one of
      // kInner terms.
      for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 2e-3) << i;
    }
  }
}

TEST_P(MoeExpertsTest, TokensDoNotDependOnTheBatch) {
  const Tokens tokens = MakeTokens(33);
  const std::vector<float> want = Apply(*MakeOps(1), tokens, true);
  for (int threads : {1, 2, 5}) {
    const auto ops = MakeOps(threads);
    for (int64_t count : {1, 7, 33}) {
      const int64_t first = 33 - count;
      const std::vector<float> got = Apply(*ops, tokens.Part(first, count), true);
      EXPECT_EQ(std::memcmp(got.data(), want.data() + first * kHidden, got.size() * 4), 0)
          << count << " tokens, " << threads << " threads";
    }
  }
}

TEST_P(MoeExpertsTest, OrderOfTheChosenDoesNotMatter) {
  const Tokens tokens = MakeTokens(9);
  Tokens swapped = tokens;
  for (int64_t t = 0; t < tokens.count(); ++t) {
    std::swap(swapped.chosen[t * kTopK], swapped.chosen[t * kTopK + 1]);
    std::swap(swapped.weights[t * kTopK], swapped.weights[t * kTopK + 1]);
  }
  const auto ops = MakeOps(2);
  EXPECT_EQ(Apply(*ops, tokens, true), Apply(*ops, swapped, true));
}

INSTANTIATE_TEST_SUITE_P(Isas, MoeExpertsTest, testing::ValuesIn(Isas()),
                         [](const auto& info) { return CpuIsaName(info.param); });

}  // namespace
}  // namespace troupe
