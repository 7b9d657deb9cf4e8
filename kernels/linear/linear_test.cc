// What the common table of operations does not cover: packing at odd sizes, and that a row's result
// is the same whatever the batch, the threads and the instruction set's tiles.
#include "kernels/linear/linear.h"

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/bf16.h"
#include "kernels/linear/linear_cpu.h"
#include "kernels/ops.h"

namespace troupe {
namespace {

std::vector<float> Random(int64_t count, uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(engine);
  return values;
}

Tensor View(std::vector<float>& values, int64_t rows, int64_t cols) {
  return Tensor{values.data(), DType::kF32, rows, cols, cols};
}

class Weights {
 public:
  Weights(int64_t rows, int64_t cols, DType dtype) : values_(Random(rows * cols, 7)) {
    for (float value : values_) bf16_.push_back(ToBf16(value));
    void* data = dtype == DType::kF32 ? static_cast<void*>(values_.data()) : bf16_.data();
    tensor_ = Tensor{data, dtype, rows, cols, cols};
  }
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;

  const Tensor& tensor() const { return tensor_; }

 private:
  std::vector<float> values_;
  std::vector<Bf16> bf16_;
  Tensor tensor_;
};

std::vector<CpuIsa> Isas() {
  std::vector<CpuIsa> isas;
  for (int i = 0; i <= static_cast<int>(*DetectCpuIsa()); ++i) isas.push_back(CpuIsa(i));
  return isas;
}

using Case = std::tuple<CpuIsa, DType, Precision>;

class LinearTest : public testing::TestWithParam<Case> {
 protected:
  std::unique_ptr<Ops> MakeOps(int threads) const {
    return MakeCpuOps(CpuOpsOptions{.threads = threads, .isa = std::get<0>(GetParam())});
  }
  DType dtype() const { return std::get<1>(GetParam()); }
  Precision precision() const { return std::get<2>(GetParam()); }

  std::vector<float> Product(Ops& ops, const Tensor& weights, std::vector<float>& x,
                             int64_t rows) const {
    const auto w = ops.Pack({weights}, precision());
    std::vector<float> out(rows * weights.rows, 0.5f);
    ops.Linear(LinearParams{.x = View(x, rows, weights.cols),
                            .w = w.get(),
                            .out = View(out, rows, weights.rows),
                            .accumulate = true});
    ops.Synchronize();
    return out;
  }
};

// Sizes around the edges of vectors, pairs, panels and tiles.
TEST_P(LinearTest, AgreesWithReferenceAtAwkwardSizes) {
  const auto ops = MakeOps(2);
  const auto reference = MakeReferenceOps();
  for (int64_t outputs : {1, 8, 15, 17, 32, 33, 100}) {
    for (int64_t inputs : {1, 2, 7, 64, 129}) {
      const Weights weights(outputs, inputs, dtype());
      for (int64_t rows : {1, 2, 5, 6, 7, 12, 13, 25}) {
        std::vector<float> x = Random(rows * inputs, 3);
        const std::vector<float> got = Product(*ops, weights.tensor(), x, rows);
        const std::vector<float> want = Product(*reference, weights.tensor(), x, rows);
        for (size_t i = 0; i < want.size(); ++i) {
          // Sums of `inputs` products of unit variance, each step rounded to 2^-24.
          ASSERT_NEAR(got[i], want[i], 4e-6 * std::sqrt(static_cast<double>(inputs)))
              << outputs << "x" << inputs << ", row " << i / outputs << " of " << rows;
        }
      }
    }
  }
}

TEST_P(LinearTest, RowsDoNotDependOnTheBatch) {
  const int64_t outputs = 200;
  const int64_t inputs = 331;
  const int64_t most_rows = 33;
  const Weights weights(outputs, inputs, dtype());
  std::vector<float> x = Random(most_rows * inputs, 5);
  const std::vector<float> want = Product(*MakeOps(1), weights.tensor(), x, most_rows);
  for (int threads : {1, 2, 5}) {
    const auto ops = MakeOps(threads);
    for (int64_t rows : {1, 2, 3, 7, 12, 33}) {
      for (int64_t first : {int64_t{0}, most_rows - rows}) {
        std::vector<float> part(x.begin() + first * inputs, x.begin() + (first + rows) * inputs);
        const std::vector<float> got = Product(*ops, weights.tensor(), part, rows);
        EXPECT_EQ(std::memcmp(got.data(), want.data() + first * outputs, got.size() * 4), 0)
            << rows << " rows from " << first << ", " << threads << " threads";
      }
    }
  }
}

TEST_P(LinearTest, PartsFollowOneAnotherAndStridesCount) {
  const auto ops = MakeOps(2);
  const auto reference = MakeReferenceOps();
  const Weights first(40, 30, dtype());
  const Weights second(9, 30, dtype());
  Tensor narrow = first.tensor();
  narrow.rows = 13;
  narrow.cols = 24;
  Tensor other = second.tensor();
  other.cols = 24;
  std::vector<float> x = Random(3 * 50, 1);
  std::vector<std::vector<float>> results;
  for (Ops* each : {ops.get(), reference.get()}) {
    const auto w = each->Pack({narrow, other}, precision());
    EXPECT_EQ(w->outputs(), 22);
    EXPECT_EQ(w->inputs(), 24);
    std::vector<float> out(3 * 60, 0.0f);
    Tensor x_view{x.data(), DType::kF32, 3, 24, 50};
    Tensor out_view{out.data() + 2, DType::kF32, 3, 22, 60};
    each->Linear(LinearParams{.x = x_view, .w = w.get(), .out = out_view});
    each->Synchronize();
    results.push_back(out);
  }
  for (size_t i = 0; i < results[0].size(); ++i) EXPECT_NEAR(results[0][i], results[1][i], 1e-4);
}

std::string NameOf(const testing::TestParamInfo<Case>& info) {
  const auto [isa, dtype, precision] = info.param;
  return std::string(CpuIsaName(isa)) + (dtype == DType::kF32 ? "_f32" : "_bf16") +
         (precision == Precision::kF32 ? "_exact" : "_rounded");
}

INSTANTIATE_TEST_SUITE_P(All, LinearTest,
                         testing::Combine(testing::ValuesIn(Isas()),
                                          testing::Values(DType::kF32, DType::kBf16),
                                          testing::Values(Precision::kF32, Precision::kBf16)),
                         NameOf);

TEST(LinearConfigTest, CoversEverythingAndSharesBigWork) {
  for (int threads : {1, 2, 16}) {
    for (int64_t rows : {1, 8, 512}) {
      for (int64_t outputs : {8, 256, 4096}) {
        const PanelView w{nullptr, DType::kBf16, Precision::kBf16, outputs, 4096};
        const LinearConfig config = ChooseLinearConfig(rows, w, CpuIsa::kAvx512Bf16, threads);
        EXPECT_LE(config.tiles_per_task, config.tiles);
        EXPECT_GE(config.tiles_per_task, 1);
        EXPECT_GE(config.panels_per_task, 1);
        const int64_t panels = (outputs + 31) / 32;
        const int64_t tasks = (panels + config.panels_per_task - 1) / config.panels_per_task *
                              ((config.tiles + config.tiles_per_task - 1) / config.tiles_per_task);
        if (outputs == 4096) {
          EXPECT_GE(tasks, threads);
        }
        EXPECT_LE(tasks, 8 * threads);
      }
    }
  }
}

TEST(LinearConfigTest, SmallWorkStaysOnOneThread) {
  const PanelView w{nullptr, DType::kBf16, Precision::kBf16, 8, 64};
  const LinearConfig config = ChooseLinearConfig(1, w, CpuIsa::kAvx512Bf16, 16);
  EXPECT_EQ(config.panels_per_task, 1);
  EXPECT_EQ(config.tiles_per_task, 1);
}

}  // namespace
}  // namespace troupe
