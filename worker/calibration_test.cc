#include "worker/calibration.h"

#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace troupe {
namespace {

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  std::vector<float> Values(int64_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = normal_(engine_);
    return values;
  }

 private:
  std::mt19937 engine_;
  std::normal_distribution<float> normal_;
};

Tensor View(std::vector<float>& values, int64_t cols) {
  return {values.data(), DType::kF32, static_cast<int64_t>(values.size()) / cols, cols, cols};
}

LinearWeights Named(absl::string_view name) {
  LinearWeights weights;
  weights.weight.storage = PlainStorage{.tensor = {.name = name}};
  return weights;
}

TEST(CalibrationTest, SumsProductsOfInputs) {
  Calibration calibration;
  const auto ops = MakeCalibrationOps(MakeCpuOps({.threads = 1}), &calibration);
  Random random(1);
  std::vector<float> w = random.Values(12);
  std::vector<float> x = random.Values(15);
  const auto packed = ops->Pack({View(w, 3)}, Precision::kF32);
  calibration.Name(packed.get(), {Named("a.weight"), Named("b.weight")});
  std::vector<float> out(20);
  for (int i = 0; i < 2; ++i) {
    ops->Linear({.x = View(x, 3), .w = packed.get(), .out = View(out, 4)});
  }
  const auto& moments = *calibration.matrices().at("b.weight");
  EXPECT_EQ(calibration.matrices().at("a.weight").get(), &moments);
  EXPECT_EQ(moments.tokens, 10);
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j <= i; ++j) {
      float want = 0;
      for (int t = 0; t < 5; ++t) want += 2 * x[3 * t + i] * x[3 * t + j];
      EXPECT_NEAR(moments.products[3 * i + j], want, 1e-5);
    }
  }
}

// Experts one by one give what all at once give, and each sees its own tokens only.
TEST(CalibrationTest, ExpertsComputeTheSame) {
  constexpr int64_t kHidden = 20;
  constexpr int64_t kInner = 12;
  constexpr int kExperts = 4;
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  Calibration calibration;
  const auto observed = MakeCalibrationOps(MakeCpuOps({.threads = 1}), &calibration);
  const auto reference = MakeReferenceOps();
  const std::vector<int32_t> chosen = {0, 2, 2, 1, 0, 1};  // expert 3: nobody
  const std::vector<float> weights = {0.5F, 0.25F, 1.0F, 0.75F, 0.3F, 0.6F};
  std::vector<std::vector<float>> results;
  for (Ops* ops : {observed.get(), reference.get()}) {
    Random random(seed);
    std::vector<std::unique_ptr<PackedMatrix>> matrices;
    std::vector<ExpertWeights> experts;
    for (int e = 0; e <= kExperts; ++e) {
      std::vector<float> gate_up = random.Values(2 * kInner * kHidden);
      std::vector<float> down = random.Values(kHidden * kInner);
      matrices.push_back(ops->Pack({View(gate_up, kHidden)}, Precision::kF32));
      experts.push_back({.gate_up = matrices.back().get()});
      matrices.push_back(ops->Pack({View(down, kInner)}, Precision::kF32));
      experts.back().down = matrices.back().get();
      if (ops != observed.get()) continue;
      calibration.Name(experts.back().gate_up, {Named(e == 0 ? "first" : "")});
      if (e == 3) calibration.Name(experts.back().down, {Named("idle")});
    }
    std::vector<float> x = random.Values(3 * kHidden);
    std::vector<float> out = random.Values(3 * kHidden);
    const auto list = ops->ListExperts(absl::MakeConstSpan(experts).first(kExperts));
    ops->MoeExperts({.x = View(x, kHidden),
                     .experts = list.get(),
                     .shared = &experts.back(),
                     .top_k = 2,
                     .chosen = chosen.data(),
                     .weights = weights.data(),
                     .out = View(out, kHidden)});
    ops->Synchronize();
    results.push_back(out);
  }
  for (size_t i = 0; i < results[0].size(); ++i) {
    EXPECT_NEAR(results[0][i], results[1][i], 2e-3) << i;
  }
  EXPECT_EQ(calibration.matrices().at("first")->tokens, 2);
  EXPECT_EQ(calibration.matrices().at("idle")->tokens, 0);
}

}  // namespace
}  // namespace troupe
